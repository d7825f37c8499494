"""One tool call of the GLM format, read while it streams: its name as a whole, its arguments as growing JSON text.

    NAME
    <arg_key>KEY</arg_key>
    <arg_value>VALUE</arg_value>

The newlines are optional (GLM-4.7 writes none), and so are arguments. A value that the tool's schema calls a string is
passed on as it comes; any other is held until it is closed. Text between the arguments is dropped.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from glm_worker.server.text.argument_types import STRING, argument_json, argument_types, json_string
from glm_worker.server.text.deltas import Delta, ToolArguments, ToolCall

KEY, END_KEY = "<arg_key>", "</arg_key>"
VALUE, END_VALUE = "<arg_value>", "</arg_value>"


class _State(Enum):
    NAME = auto()
    BETWEEN = auto()  # arguments
    IN_KEY = auto()
    AFTER_KEY = auto()
    IN_VALUE = auto()
    IN_STRING = auto()  # a value that is passed on as it comes
    CLOSED = auto()


class ToolCallReader:
    """Reads the text between `<tool_call>` and `</tool_call>`. tools: their parameter schemas, by name."""

    def __init__(self, index: int, tools: Mapping[str, Mapping[str, Any] | None]) -> None:
        self._index = index
        self._tools = tools
        self._state = _State.NAME
        self._text = ""  # read, and not understood yet
        self._name = ""
        self._key = ""
        self._types = STRING
        self._seen: set[str] = set()

    @property
    def has_begun(self) -> bool:
        """Whether the call has a name, and so exists for the client."""
        return bool(self._name)

    @property
    def is_inside_value(self) -> bool:
        return self._state in (_State.IN_VALUE, _State.IN_STRING)

    def feed(self, text: str) -> list[Delta]:
        """Return what the text adds to the call."""
        self._text += text
        deltas: list[Delta] = []
        while (step := self._advance()) is not None:
            deltas += step
        return deltas

    def close(self) -> list[Delta]:
        """End the call where it stands, as `</tool_call>` does: the arguments become a complete JSON object."""
        if self._state is _State.NAME:
            deltas = self._begin(self._text)
        elif self._state is _State.IN_VALUE:
            deltas = self._argument(self._text)
        elif self._state is _State.IN_STRING:
            deltas = self._more(json_string(self._text)[1:])
        else:
            deltas = []
        if self.has_begun:
            deltas += self._more("}" if self._seen else "{}")
        self._state = _State.CLOSED
        return deltas

    def cut(self) -> list[Delta]:
        """End the call in the middle: give out what is certain and leave the JSON open: nobody may run half a call."""
        deltas = self._more(json_string(self._text)[1:-1]) if self._state is _State.IN_STRING else []
        self._state = _State.CLOSED
        return deltas

    def _advance(self) -> list[Delta] | None:
        """Read one part of the call from the text; None when more text is needed first."""
        match self._state:
            case _State.NAME:
                self._text = self._text.lstrip()
                return self._begin(name) if (name := self._take_name()) is not None else None
            case _State.BETWEEN:
                return self._enter(_State.IN_KEY) if self._take_until(KEY) is not None else None
            case _State.IN_KEY:
                if (key := self._take_until(END_KEY)) is None:
                    return None
                self._key = key.strip()
                return self._enter(_State.AFTER_KEY)
            case _State.AFTER_KEY:
                return self._after_key()
            case _State.IN_VALUE:
                return self._argument(value) if (value := self._take_until(END_VALUE)) is not None else None
            case _State.IN_STRING:
                return self._string_part()
            case _State.CLOSED:
                return None

    def _begin(self, name: str) -> list[Delta]:
        self._name = name.strip()
        self._state = _State.BETWEEN
        return [ToolCall(self._index, self._name)] if self._name else []

    def _after_key(self) -> list[Delta] | None:
        value_at, key_at = self._text.find(VALUE), self._text.find(KEY)
        if key_at >= 0 and not 0 <= value_at < key_at:  # the key has no value: it is dropped
            self._take_until(KEY)
            return self._enter(_State.IN_KEY)
        return self._begin_value() if self._take_until(VALUE) is not None else None

    def _begin_value(self) -> list[Delta]:
        self._types = argument_types(self._tools.get(self._name), self._key)
        if self._types != STRING or self._key in self._seen:
            return self._enter(_State.IN_VALUE)
        self._state = _State.IN_STRING
        return self._more(self._opening() + '"')

    def _string_part(self) -> list[Delta] | None:
        end = self._text.find(END_VALUE)
        if end >= 0:
            text, self._text = self._text[:end], self._text[end + len(END_VALUE) :]
            self._state = _State.BETWEEN
            return self._more(json_string(text)[1:])
        keep = next((n for n in range(len(END_VALUE) - 1, 0, -1) if self._text.endswith(END_VALUE[:n])), 0)
        cut = len(self._text) - keep
        text, self._text = self._text[:cut], self._text[cut:]
        return self._more(json_string(text)[1:-1]) if text else None

    def _argument(self, value: str) -> list[Delta]:
        self._state = _State.BETWEEN
        if self._key in self._seen:  # of an argument given twice the first counts: it may have been passed on already
            return []
        return self._more(self._opening() + argument_json(value, self._types))

    def _opening(self) -> str:
        """Return the JSON text up to the value of the current key."""
        before = ", " if self._seen else "{"
        self._seen.add(self._key)
        return f"{before}{json_string(self._key)}: "

    def _more(self, text: str) -> list[Delta]:
        return [ToolArguments(self._index, text)] if text and self.has_begun else []

    def _enter(self, state: _State) -> list[Delta]:
        self._state = state
        return []

    def _take_name(self) -> str | None:
        """Take the name: up to the end of its line, or up to the first `<arg_key>`, which stays."""
        ends = [at for mark in ("\n", KEY) if (at := self._text.find(mark)) >= 0]
        if not ends:
            return None
        name, self._text = self._text[: min(ends)], self._text[min(ends) :]
        return name

    def _take_until(self, mark: str) -> str | None:
        """Take the text before a mark, and the mark with it; None, and nothing taken, when it has not come yet."""
        before, found, after = self._text.partition(mark)
        if not found:
            return None
        self._text = after
        return before
