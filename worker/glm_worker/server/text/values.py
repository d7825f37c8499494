"""Where the value of an argument ends: at an `</arg_value>` after which the call goes on or ends.

Any other one is text of the value, as are all tags inside it, so that code, XML and JSON come back whole. A call goes
on with `<arg_key>`, ends with `</tool_call>`, and ends without that when the call of an offered tool begins.
"""

from collections.abc import Collection
from enum import Enum, auto

from glm_worker.server.text.call_names import KEY, name_at, past_blanks
from glm_worker.server.text.lexer import Tag
from glm_worker.server.text.marks import MARK

END_VALUE = "</arg_value>"


class Closing(Enum):
    """Whether an `</arg_value>` ends its value."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()  # what follows has not come yet


def closing_of(text: str, at: int, tools: Collection[str]) -> tuple[Closing, int]:
    """Return whether the `</arg_value>` at this place of a marked text ends the value, and where what follows begins.

    tools: the names of those on offer.
    """
    after = at + len(END_VALUE)
    start = past_blanks(text, after)
    if start is None:
        return Closing.NO, after
    rest = text[start : start + len(KEY)]
    if rest == KEY or rest.startswith(MARK[Tag.END_TOOL_CALL]):
        return Closing.YES, start
    if KEY.startswith(rest):
        return Closing.UNKNOWN, after
    if rest.startswith(MARK[Tag.TOOL_CALL]) and (name := name_at(text, start + 1)) is not None:
        if name.is_open and any(offered.startswith(name.text) for offered in tools):
            return Closing.UNKNOWN, after
        if not name.is_open and name.text in tools:
            return Closing.YES, start
    return Closing.NO, after


def num_held(text: str, tag: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a tag."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)
