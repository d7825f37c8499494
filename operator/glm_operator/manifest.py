"""Kubernetes objects as plain dicts, and what can be said of them without a cluster. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from glm_operator.names import APPLIED_ANNOTATION

Manifest = dict[str, Any]


def name_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def kind_of(manifest: Manifest) -> tuple[str, str]:
    """Return apiVersion and kind."""
    return str(manifest["apiVersion"]), str(manifest["kind"])


def is_contained(wanted: object, live: object) -> bool:
    """Tell whether everything in wanted is in live as well; the API server adds defaults, which do not matter.

    Lists must have equal length and match item by item. A quantity that the server writes in another form counts as
    different: that costs one apply that changes nothing.
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(key in live and is_contained(wanted[key], live[key]) for key in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(wanted) == len(live)
            and all(is_contained(left, right) for left, right in zip(wanted, live, strict=True))
        )
    return wanted == live


def is_applied(manifest: Manifest, live: Manifest | None) -> bool:
    """Tell whether an apply of manifest would change nothing.

    Two things are looked at: the hash of what was applied last, which sees a field that is no longer sent, and the
    live object itself, which shows what others changed.
    """
    if live is None:
        return False
    annotation = (live["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION)
    wanted = (manifest["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION)
    return wanted is not None and annotation == wanted and is_contained(manifest, live)


def hash_of(value: object) -> str:
    """Return ten hexadecimal digits that stand for a JSON value: equal for equal values, whatever the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def merge_patch(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch that makes one object the other: null for what goes."""
    patch: dict[str, Any] = {key: None for key in current if key not in wanted}
    for key, value in wanted.items():
        before = current.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif value != before:
            patch[key] = value
    return patch
