"""Who may ask, as the gateway's file says: what must run for it."""

import contextlib
import logging

from glm_gateway.access.config import AuthConfig
from glm_gateway.access.decide import Mode
from glm_gateway.access.source import KeySource, nobody_listens
from glm_gateway.admission.gate import Gate
from glm_gateway.audit.log import AuditLog
from glm_gateway.identity.issuer import Issuer
from glm_gateway.identity.judge import Judge

log = logging.getLogger(__name__)


async def gate_of(
    auth: AuthConfig, secret: bytes, stack: contextlib.AsyncExitStack, audit: AuditLog | None = None
) -> Gate:
    """Return the gate. audit: is told when keys change.

    What runs for it ends with the stack. Raises OSError for a file that cannot be read.
    """
    match auth.mode:
        case Mode.NONE:
            log.warning("auth.mode is None: everybody who reaches this gateway is answered")
            return Gate(mode=auth.mode, tenant_secret=secret)
        case Mode.JWT:
            assert auth.jwt is not None
            issuer = Issuer(auth.jwt)
            stack.push_async_callback(issuer.close)
            await issuer.open()
            return Gate(mode=auth.mode, tenant_secret=secret, issuer=issuer)
        case Mode.JUDGE:
            assert auth.judge is not None
            judge = Judge(auth.judge)
            stack.push_async_callback(judge.close)
            await judge.open()
            return Gate(mode=auth.mode, tenant_secret=secret, judge=judge)
        case Mode.KEYS:
            assert auth.keys_folder is not None
            keys = KeySource(auth.keys_folder, changed=nobody_listens if audit is None else audit.keys_changed)
            keys.start()
            stack.callback(keys.close)
            return Gate(mode=auth.mode, tenant_secret=secret, keyring=lambda: keys.keyring)


def num_keys(gate: Gate) -> int | None:
    """Return how many keys are good; None: callers are not known by keys, or none could be read yet."""
    keyring = gate.keyring()
    return None if keyring is None else len(keyring.keys)
