"""The reasoning of an item as an opaque string, which clients that store nothing send back to let the model go on.

It holds only what the same client reads as `content` anyway, so it is encoded and not encrypted. Reasoning that is
hidden from a client is in neither. The check digits tell a string that was cut or made elsewhere.
"""

import base64
import binascii
import hashlib

_PREFIX = "glm1."
_NUM_CHECK = 8  # hex digits


def seal(reasoning: str) -> str:
    """Return the string that stands for this reasoning."""
    data = reasoning.encode()
    return f"{_PREFIX}{_check(data)}.{base64.urlsafe_b64encode(data).decode()}"


def unseal(text: str) -> str | None:
    """Return the reasoning in such a string, or None when it is not one of ours."""
    head, _, encoded = text.removeprefix(_PREFIX).partition(".")
    if not text.startswith(_PREFIX) or len(head) != _NUM_CHECK:
        return None
    try:
        data = base64.b64decode(encoded, altchars=b"-_", validate=True)
        return data.decode() if _check(data) == head else None
    except (binascii.Error, ValueError):
        return None


def _check(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_NUM_CHECK]
