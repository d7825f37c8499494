"""API keys as a Secret keeps them: an item a key, by name, with hashes in place of secrets."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from glm_gateway.access.secrets import blinded, digest_of

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
"""Of a key: an item of a Secret, and a label of metrics."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Hash(_Model):
    """One secret that opens the key. not_after: while a key is rotated, the old secret is still good until then."""

    sha256: Digest
    not_after: AwareDatetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.not_after is None or now < self.not_after


class Key(_Model):
    """hashes: at most two are good at a time. group: of keys that share limits. role: told to workers."""

    hashes: tuple[Hash, ...] = Field(min_length=1, max_length=2)
    group: str | None = Field(default=None, pattern=f"^{NAME.pattern}$")
    role: str | None = Field(default=None, pattern=f"^{NAME.pattern}$")
    expires: AwareDatetime | None = None
    created: AwareDatetime | None = None

    def is_expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


class Keyring:
    """All keys, to be found by a secret. mistakes: items that are none, each with a sentence; they open nothing."""

    def __init__(self, keys: Mapping[str, Key], mistakes: tuple[str, ...] = ()) -> None:
        self.keys = dict(keys)
        self.mistakes = mistakes
        self._by_blinded = {
            blinded(hash_.sha256): (name, key, hash_) for name, key in keys.items() for hash_ in key.hashes
        }

    def known(self, secret: str) -> tuple[str, Key, Hash] | None:
        """Return the key that a secret opens or did open, with its name and what was kept of the secret."""
        return self._by_blinded.get(blinded(digest_of(secret)))

    def find(self, secret: str, now: datetime) -> tuple[str, Key] | None:
        """Return the key that a secret opens now, with its name; None: it opens none, or one that has expired."""
        found = self.known(secret)
        if found is None:
            return None
        name, key, hash_ = found
        return None if key.is_expired(now) or not hash_.is_valid(now) else (name, key)


def keyring_of(items: Mapping[str, bytes]) -> Keyring:
    """Return the keys in a Secret's items. What is no key is left out and named: one bad item locks nobody else out.

    A hash that stands in two keys opens neither: who it is could not be said.
    """
    keys, mistakes = {}, []
    for name, data in sorted(items.items()):
        if not NAME.fullmatch(name):
            mistakes.append(f"{name[:64]!r} is no name of a key: small letters, digits, '-' and '.', at most 63")
            continue
        try:
            keys[name] = Key.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the item"
            mistakes.append(f"key {name}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}")
    holders: dict[str, list[str]] = {}
    for name, key in keys.items():
        for digest in {hash_.sha256 for hash_ in key.hashes}:
            holders.setdefault(digest, []).append(name)
    for names in holders.values():
        if len(names) > 1:
            mistakes.append(f"keys {' and '.join(names)} have a secret in common: neither is good")
            for name in names:
                keys.pop(name, None)
    return Keyring(keys, tuple(mistakes))


def item_of(key: Key) -> bytes:
    """Return a key as an item of a Secret."""
    return json.dumps(key.model_dump(mode="json", by_alias=True, exclude_none=True), separators=(",", ":")).encode()


def new_key(secret: str, now: datetime, *, group: str | None, role: str | None, expires: datetime | None) -> Key:
    """Return the key that a secret opens from now on."""
    return Key(
        hashes=(Hash(sha256=digest_of(secret)),), group=group, role=role, expires=expires, created=now.astimezone(UTC)
    )


def rotated(key: Key, secret: str, old_until: datetime) -> Key:
    """Return the key with a new secret. The newest of the old ones is good until then; an older one no more."""
    newest = key.hashes[-1]
    until = old_until if newest.not_after is None else min(old_until, newest.not_after)
    old = newest.model_copy(update={"not_after": until.astimezone(UTC)})
    return key.model_copy(update={"hashes": (old, Hash(sha256=digest_of(secret)))})
