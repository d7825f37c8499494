"""Who a caller is, as somebody else says it: an issuer by a token's claims, a judge by its answer. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_NAME = 255
"""Of a name: what OIDC allows a subject."""

ROLE = re.compile(r"[!-~]{1,64}")
"""What workers take in a header. Of groups nobody takes more."""


@dataclass(frozen=True)
class Who:
    """name: that limits and usage know the caller by. group, role: as of a key."""

    name: str
    group: str | None
    role: str | None


class BadWho(ValueError):
    """Nobody can be made of what was said. The sentence names the field, and tells no value of it."""


def who_in(said: Mapping[str, Any], *, name: str, group: str | None, role: str | None) -> Who:
    """Return who is said. name, group, role: of the fields that say it; None: nothing is read. Raises BadWho.

    A list of groups or roles, as many issuers have it, counts by its first.
    """
    found = said.get(name)
    if not isinstance(found, str) or not 1 <= len(found) <= MAX_NAME or not found.isprintable():
        raise BadWho(f"{name} must be a text of 1 to {MAX_NAME} printable characters")
    return Who(found, _word(said, group), _word(said, role))


def _word(said: Mapping[str, Any], field: str | None) -> str | None:
    found = None if field is None else said.get(field)
    if isinstance(found, list):
        found = found[0] if found else None
    if found is None:
        return None
    if not isinstance(found, str) or not ROLE.fullmatch(found):
        raise BadWho(f"{field} must be a text of 1 to 64 visible ASCII characters, or a list that begins with one")
    return found
