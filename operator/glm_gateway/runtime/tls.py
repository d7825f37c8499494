"""The certificates of a gateway, as its file says: what must run for them."""

import asyncio
import contextlib
import ssl

from glm_gateway.config.config import GatewayConfig
from glm_gateway.tls.shown import ShownCertificate
from glm_gateway.tls.to_workers import WorkersCertificate


def with_clients(config: GatewayConfig, stack: contextlib.AsyncExitStack) -> ssl.SSLContext | None:
    """Return how clients are spoken to; its certificate follows the folder until the stack ends. Raises OSError."""
    if config.tls is None:
        return None
    shown = ShownCertificate(config.tls.folder)
    stack.callback(asyncio.create_task(shown.follow()).cancel)
    return shown.context


def with_workers(config: GatewayConfig, stack: contextlib.AsyncExitStack) -> ssl.SSLContext | None:
    """Return how groups that speak TLS are spoken to, in the same way; None: they are not."""
    if config.workers.tls_folder is None:
        return None
    known_by = WorkersCertificate(config.workers.tls_folder)
    stack.callback(asyncio.create_task(known_by.follow()).cancel)
    return known_by.context
