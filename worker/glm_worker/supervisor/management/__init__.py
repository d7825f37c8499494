"""The management port: probes, metrics, the load, and what may be put."""
