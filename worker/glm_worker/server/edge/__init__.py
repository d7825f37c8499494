"""The edge of HTTP: connections, bodies and their bounds."""
