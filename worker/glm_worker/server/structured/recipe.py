"""What the compile process gets: one grammar in Lark syntax and what its `@names` stand for. Plain data, no code.

Control tokens are in a grammar by their ids (`<[1015]>`): text never matches one, however it is spelled.
"""

import hashlib
from functools import cached_property

import msgspec


class SchemaPart(msgspec.Struct, frozen=True, tag="schema"):
    """JSON of this schema, which has only what xgrammar keeps exactly: bounds of numbers. text: the schema's JSON."""

    text: str


class EbnfPart(msgspec.Struct, frozen=True, tag="ebnf"):
    """A grammar of its own, in xgrammar's EBNF, which alone counts repeats instead of writing them out."""

    text: str


Part = SchemaPart | EbnfPart


class Recipe(msgspec.Struct, frozen=True, dict=True):
    """A grammar to compile. param: the field of the request it came from, for refusals; no part of the key."""

    lark: str  # begins at its rule `start`
    parts: dict[str, Part] = {}
    param: str = ""

    @cached_property
    def key(self) -> str:
        """sha256 of what is compiled."""
        return hashlib.sha256(_encoder.encode([self.lark, self.parts])).hexdigest()


_encoder = msgspec.json.Encoder(order="deterministic")
