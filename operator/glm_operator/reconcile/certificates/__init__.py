"""Certificates by which gateways and workers know each other: made, renewed, and kept in Secrets."""
