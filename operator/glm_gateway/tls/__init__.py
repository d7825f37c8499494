"""Certificates that the gateway shows."""
