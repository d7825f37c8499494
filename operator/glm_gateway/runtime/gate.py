"""Who may ask, as the gateway's file says: what must run for it."""

import contextlib
import logging

from glm_gateway.access.config import AuthConfig
from glm_gateway.access.decide import Mode
from glm_gateway.access.source import KeySource
from glm_gateway.admission.gate import Gate

log = logging.getLogger(__name__)


def gate_of(auth: AuthConfig, secret: bytes, stack: contextlib.AsyncExitStack) -> Gate:
    """Return the gate. What runs for it ends with the stack."""
    if auth.mode is Mode.NONE:
        log.warning("auth.mode is None: everybody who reaches this gateway is answered")
        return Gate(mode=Mode.NONE, tenant_secret=secret)
    assert auth.keys_folder is not None
    keys = KeySource(auth.keys_folder)
    keys.start()
    stack.callback(keys.close)
    return Gate(mode=Mode.KEYS, tenant_secret=secret, keyring=lambda: keys.keyring)


def num_keys(gate: Gate) -> int | None:
    """Return how many keys are good; None: callers are not known by keys, or none could be read yet."""
    keyring = gate.keyring()
    return None if keyring is None else len(keyring.keys)
