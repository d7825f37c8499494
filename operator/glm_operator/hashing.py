"""Short names for JSON values: equal for equal values, whatever the order of their keys. Pure."""

import hashlib
import json


def hash_of(value: object) -> str:
    """Return ten hexadecimal digits that stand for a JSON value."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]
