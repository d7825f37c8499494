"""Grafana's dashboards as values: what each panel asks, how it looks, and what its answers may be."""
