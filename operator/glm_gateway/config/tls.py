"""Where certificates lie, as the gateway's file says it."""

from pathlib import Path

from glm_gateway.part import Part


class TlsConfig(Part):
    """folder: of tls.crt and tls.key, that clients are shown."""

    folder: Path


class WorkersConfig(Part):
    """tls_folder: of ca.crt, tls.crt and tls.key, for TLS with workers; null: they speak plain HTTP."""

    tls_folder: Path | None = None
