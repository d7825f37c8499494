"""Ids of responses and of their items. A response's id names the group that has it, so that a gateway can find it.

    resp_<group>_<32 hex digits>        a response
    msg_, rs_, fc_, call_<the same digits><number>      what it consists of, by place in its output
    msg_, rs_, fc_, fco_<the same digits>i<number>      items of its input that came without an id

The digits are 128 random bits: nobody guesses the id of another tenant's response, and the tenant is compared besides.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Literal

ItemKind = Literal["msg", "rs", "fc", "fco", "call"]

_NOT_IN_A_TAG = re.compile(r"[^A-Za-z0-9.-]")
_LONGEST_TAG = 63  # as long as names of groups can be
_RESPONSE_ID = re.compile(r"resp_(?P<tag>[A-Za-z0-9.-]{1,63})_(?P<digits>[0-9a-f]{32})")
_ITEM_ID = re.compile(r"(?:msg|rs|fc|fco)_(?P<digits>[0-9a-f]{32})i?[0-9]{1,9}")


def tag_of(group: str) -> str:
    """Return a group's name as ids have it."""
    return _NOT_IN_A_TAG.sub("-", group)[:_LONGEST_TAG] or "-"


@dataclass(frozen=True, slots=True)
class ResponseId:
    """tag: of the group. digits: the random part, which the ids of its items have as well."""

    tag: str
    digits: str

    @classmethod
    def new(cls, group: str) -> "ResponseId":
        return cls(tag_of(group), secrets.token_hex(16))

    @classmethod
    def parse(cls, text: str) -> "ResponseId | None":
        """Return the parts of an id, or None for what is none."""
        found = _RESPONSE_ID.fullmatch(text)
        return None if found is None else cls(found["tag"], found["digits"])

    def __str__(self) -> str:
        return f"resp_{self.tag}_{self.digits}"

    def item(self, kind: ItemKind, number: int) -> str:
        """Return the id of a part of the output."""
        return f"{kind}_{self.digits}{number}"

    def input_item(self, kind: ItemKind, number: int) -> str:
        """Return the id of a part of the input."""
        return f"{kind}_{self.digits}i{number}"


def digits_of(item_id: str) -> str | None:
    """Return the digits of the response that an item belongs to, or None for an id that is not from here."""
    found = _ITEM_ID.fullmatch(item_id)
    return None if found is None else found["digits"]
