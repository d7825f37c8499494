"""The name after a `<tool_call>`: what may be one, and where it ends."""

import re
from dataclasses import dataclass

from glm_worker.server.text.marks import ANY_MARK

KEY = "<arg_key>"
BLANKS = " \t\r\n"
MOST_BLANKS = 64  # where the format has white space, more is text: what is held back until it is known is bounded
_NAME = re.compile(r"[A-Za-z0-9_.-]{0,128}")  # as the API allows them


@dataclass(frozen=True, slots=True)
class Name:
    """A name, or the beginning of one. text: it alone. end: where what follows begins."""

    text: str
    end: int
    is_open: bool  # the end has not come yet


def name_at(text: str, start: int) -> Name | None:
    """Return the name at this place of a marked text, None when there can be none, however the text goes on.

    It ends with its line, or at `<arg_key>` or a tag; white space around it is not part of it. It may be empty.
    """
    begin = past_blanks(text, start)
    if begin is None:
        return None
    found = _NAME.match(text, begin)
    assert found is not None
    end = past_blanks(text, found.end(), " \t\r")
    if end is None:
        return None
    rest = text[end : end + len(KEY)]
    is_open = KEY.startswith(rest) and rest != KEY
    if is_open or rest[0] == "\n" or rest == KEY or ANY_MARK.match(rest):
        return Name(found[0], end, is_open)
    return None


def past_blanks(text: str, start: int, blanks: str = BLANKS) -> int | None:
    """Return where the white space at this place ends; None when that is more than the format has."""
    end = start
    while end < len(text) and text[end] in blanks:
        end += 1
    return end if end - start <= MOST_BLANKS else None
