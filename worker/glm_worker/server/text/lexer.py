"""Token ids to pieces of text, with the tags of the output format told apart from text that looks like them.

A tag is known by its token id, looked up by its string: a model that spells `<think>` in ordinary tokens writes text.
"""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from glm_worker.server.text.tokenizer import Tokenizer


class Tag(Enum):
    """A token that separates the parts of an answer."""

    THINK = "<think>"
    END_THINK = "</think>"
    TOOL_CALL = "<tool_call>"
    END_TOOL_CALL = "</tool_call>"


THINK_TAGS = (Tag.THINK, Tag.END_THINK)
TOOL_TAGS = (Tag.TOOL_CALL, Tag.END_TOOL_CALL)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of the answer; a tag is always a piece of its own, and text is then how it is written."""

    text: str
    tag: Tag | None = None


def tag_ids(tokenizer: Tokenizer, tags: tuple[Tag, ...]) -> dict[int, Tag]:
    """Return the token ids of the tags that this vocabulary has."""
    found = {tokenizer.token_id(tag.value): tag for tag in tags}
    return {token_id: tag for token_id, tag in found.items() if token_id is not None}


class Lexer:
    """Decodes one answer, token by token. Never emits a part of a character; what stays cut becomes U+FFFD at the end.

    The texts of all pieces joined equal the decoding of all tokens at once.
    """

    def __init__(self, tokenizer: Tokenizer, tags: Mapping[int, Tag]) -> None:
        self._tokenizer = tokenizer
        self._tags = tags
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_inside = False  # of a character

    @property
    def is_inside_character(self) -> bool:
        """Whether the newest token has ended inside of a character."""
        return self._is_inside

    def feed(self, token_id: int) -> list[Piece]:
        tag = self._tags.get(token_id)
        if tag is not None:
            return [*self.finish(), Piece(tag.value, tag)]
        if not self._is_inside and (whole := self._tokenizer.text_of(token_id)) is not None:
            return [Piece(whole)] if whole else []
        text = self._utf8.decode(self._tokenizer.bytes_of(token_id))
        self._is_inside = bool(self._utf8.getstate()[0])
        return [Piece(text)] if text else []

    def finish(self) -> list[Piece]:
        """Give out the bytes of a character that will not be completed."""
        if not self._is_inside:
            return []
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        self._is_inside = False
        return [Piece(text)] if text else []
