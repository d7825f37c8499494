"""What became of keys between two readings of them, by name. Pure."""

from glm_gateway.access.keys import Key, Keyring

MAX_NAMES = 100
"""Of one kind in a line; of more there is the number alone."""


def key_changes(before: Keyring | None, after: Keyring) -> dict[str, object]:
    """Return the names of keys that came, went, were rotated or were changed else, and how many items are none.

    before: None: nothing was read yet, so all keys have come.
    """
    old: dict[str, Key] = {} if before is None else before.keys
    new = after.keys
    both = sorted(old.keys() & new.keys())
    rotated = [name for name in both if _secrets(old[name]) != _secrets(new[name])]
    changed = [name for name in both if name not in rotated and old[name] != new[name]]
    found = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "rotated": rotated,
        "changed": changed,
    }
    told: dict[str, object] = {what: names[:MAX_NAMES] for what, names in found.items()}
    told |= {f"num_{what}": len(names) for what, names in found.items()}
    return {**told, "num_mistakes": len(after.mistakes)}


def _secrets(key: Key) -> list[str]:
    return [hash_.sha256 for hash_ in key.hashes]
