"""One tool call of the GLM format, read while it streams: its name as a whole, its arguments as growing JSON text.

    NAME
    <arg_key>KEY</arg_key>
    <arg_value>VALUE</arg_value>

The newlines are optional (GLM-4.7 writes none), and so are arguments. Text between the arguments is dropped. What
follows `<tool_call>` and names no tool is no call (is_rejected). Inside a value every tag is text: it ends at an
`</arg_value>` after which the call goes on or ends (values.py).

Reads marked text (marks.py), for here tags count as well as their texts do.
"""

import re
from enum import Enum, auto

from glm_worker.server.text.argument_json import ArgumentWriter, json_string
from glm_worker.server.text.argument_types import ANYTHING, Tools
from glm_worker.server.text.call_names import BLANKS, KEY, name_at, past_blanks
from glm_worker.server.text.deltas import Delta, ToolArguments, ToolCall
from glm_worker.server.text.lexer import Tag
from glm_worker.server.text.marks import MARK, TAG, spelled
from glm_worker.server.text.values import END_VALUE, Closing, closing_of, num_held

END_KEY = "</arg_key>"
VALUE = "<arg_value>"
_END = MARK[Tag.END_TOOL_CALL]
_MARKS = "".join(TAG)
_AFTER_ARGUMENT = re.compile(f"{KEY}|[{_MARKS}]")
_AFTER_KEY = re.compile(f"{END_KEY}|{VALUE}|{KEY}|[{_MARKS}]")
_LINE_BREAK = re.compile(r"[ \t]*\r?\n")


class _State(Enum):
    NAME = auto()
    BETWEEN = auto()  # arguments
    IN_KEY = auto()
    AFTER_KEY = auto()
    IN_VALUE = auto()
    OVER = auto()


class ToolCallReader:
    """Reads what follows `<tool_call>`. tools: those on offer. any_name: whether others may be called as well."""

    def __init__(self, index: int, tools: Tools, *, any_name: bool = False) -> None:
        self._index = index
        self._tools = tools
        self._any_name = any_name
        self._state = _State.NAME
        self._text = ""  # read, and not understood yet
        self._read: list[str] = []  # of the key, before that
        self._name = ""
        self._key = ""
        self._seen: set[str] = set()
        self._value: ArgumentWriter | None = None  # None: of a key that came before, and the first value counts
        self.is_rejected = False
        self.is_cut = False  # it ended inside an argument: nobody may run half a call

    @property
    def has_begun(self) -> bool:
        """Whether the call has a name, and so exists for the client."""
        return bool(self._name)

    @property
    def is_over(self) -> bool:
        return self._state is _State.OVER

    @property
    def rest(self) -> str:
        """What was read and does not belong to the call: all of it when there is no call. Marked text."""
        return self._text if self.is_over else ""

    def feed(self, text: str) -> list[Delta]:
        """Return what the text adds to the call."""
        self._text += text
        deltas: list[Delta] = []
        while (step := self._advance()) is not None:
            deltas += step
        return deltas

    def finish(self, *, is_complete: bool) -> list[Delta]:
        """End the call where the answer ends. is_complete: the model ended it, so what can be whole is.

        A call that is cut leaves its JSON open.
        """
        deltas: list[Delta] = []
        if self._state is _State.NAME and is_complete and (name := name_at(self._text, 0)) and name.text:
            deltas = self._begin(name.text, self._text[name.end :])
        if self._state is _State.IN_VALUE:
            deltas = self._end_value_at_end()
        if self.is_over:
            return deltas
        self.is_cut = not is_complete or self._state is not _State.BETWEEN
        return deltas + self._end("", is_cut=self.is_cut)

    def _advance(self) -> list[Delta] | None:
        """Read one part of the call from the text; None when more text is needed first, or nothing is left to do."""
        match self._state:
            case _State.NAME:
                return self._read_name()
            case _State.BETWEEN:
                return self._between()
            case _State.IN_KEY:
                return self._in_key()
            case _State.AFTER_KEY:
                return self._after_key()
            case _State.IN_VALUE:
                return self._in_value()
            case _State.OVER:
                return None

    def _read_name(self) -> list[Delta] | None:
        """Take the name; reject what is none, as soon as that is certain."""
        name = name_at(self._text, 0)
        if name is None:
            return self._reject()
        if name.is_open:
            may_come = self._any_name or any(offered.startswith(name.text) for offered in self._tools)
            return None if may_come else self._reject()
        rest = self._text[name.end :]
        if not name.text and rest.startswith((_END, MARK[Tag.TOOL_CALL])):
            return self._go_on(_State.OVER, rest.removeprefix(_END))  # an empty pair of tags, or a tag written twice
        return self._begin(name.text, rest)

    def _begin(self, name: str, rest: str) -> list[Delta]:
        if not name or not (self._any_name or name in self._tools):
            return self._reject()
        self._name = name
        self._go_on(_State.BETWEEN, rest)
        return [ToolCall(self._index, name)]

    def _reject(self) -> list[Delta]:
        self.is_rejected = True
        self._state = _State.OVER
        return []

    def _between(self) -> list[Delta] | None:
        found = _AFTER_ARGUMENT.search(self._text)
        if found is None:
            self._text = self._text[len(self._text) - num_held(self._text, KEY) :]
            return None
        if found[0] == KEY:
            return self._go_on(_State.IN_KEY, self._text[found.end() :])
        return self._end_at(found.start())

    def _in_key(self) -> list[Delta] | None:
        found = _AFTER_KEY.search(self._text)
        if found is None:
            self._read.append(self._take(max(0, len(self._text) - len(VALUE))))
            return None
        self._key = spelled("".join([*self._read, self._text[: found.start()]])).strip()
        after = self._text[found.end() :]
        match found[0]:
            case tag if tag in _MARKS:
                return self._end_at(found.start(), is_inside=True)
            case tag if tag == KEY:  # the one before is dropped
                return self._go_on(_State.IN_KEY, after)
            case tag if tag == VALUE:
                return self._begin_value(after)
            case _:
                return self._go_on(_State.AFTER_KEY, after)

    def _after_key(self) -> list[Delta] | None:
        """Find the value, with its opening tag or without; a key that has none is dropped."""
        start = past_blanks(self._text, 0)
        if start is not None:
            rest = self._text[start:]
            if rest.startswith(VALUE):
                return self._begin_value(rest[len(VALUE) :])
            if rest.startswith(KEY):
                return self._go_on(_State.IN_KEY, rest[len(KEY) :])
            if VALUE.startswith(rest) or KEY.startswith(rest):
                return None
            if rest[0] in _MARKS:
                return self._end_at(start, is_inside=True)
        line_break = _LINE_BREAK.match(self._text)
        return self._begin_value(self._text[line_break.end() if line_break else 0 :])

    def _begin_value(self, rest: str) -> list[Delta]:
        self._go_on(_State.IN_VALUE, rest)
        if self._key not in self._seen:
            parameters = self._tools.get(self._name)
            self._value = ArgumentWriter(ANYTHING if parameters is None else parameters[self._key])
        return self._more(self._add(""))

    def _in_value(self) -> list[Delta] | None:
        """Take what certainly belongs to the value, and its end when that is certain."""
        at = self._text.find(END_VALUE)
        if at < 0:
            at = len(self._text) - num_held(self._text, END_VALUE)
            closing, end = Closing.UNKNOWN, at
        else:
            closing, end = closing_of(self._text, at, self._tools)
        match closing:
            case Closing.UNKNOWN:
                deltas = self._more(self._add(self._take(at)))
                return deltas or None
            case Closing.NO:
                return self._more(self._add(self._take(end)))
            case Closing.YES:
                value = self._take(at)
                return self._close_value(value, self._text[end - at :])

    def _end_value_at_end(self) -> list[Delta]:
        """The answer ends inside a value: that is closed when only white space came after `</arg_value>`."""
        value, tag, after = self._text.partition(END_VALUE)
        if tag and not after.strip(BLANKS):
            return self._close_value(value, "")
        return self._more(self._add(self._take(len(self._text))))

    def _close_value(self, value: str, rest: str) -> list[Delta]:
        text = self._add(value)
        if self._value is not None:
            text += self._opening() + self._value.close()
        self._value = None
        self._go_on(_State.BETWEEN, rest)
        return self._more(text)

    def _take(self, length: int) -> str:
        text, self._text = self._text[:length], self._text[length:]
        return text

    def _add(self, text: str) -> str:
        """Add text to the value; return what that adds to the arguments."""
        if self._value is None:
            return ""
        text = self._value.add(spelled(text))
        return self._opening() + text if text else ""

    def _opening(self) -> str:
        """Return the JSON text up to the value of the current key, once."""
        if self._key in self._seen:
            return ""
        before = ", " if self._seen else "{"
        self._seen.add(self._key)
        return f"{before}{json_string(self._key)}: "

    def _end_at(self, position: int, *, is_inside: bool = False) -> list[Delta]:
        """End the call at a tag. `</tool_call>` ends it as it stands; another one inside an argument cuts it."""
        rest = self._text[position:]
        is_closed = rest.startswith(_END)
        return self._end(rest.removeprefix(_END), is_cut=is_inside and not is_closed)

    def _end(self, rest: str, *, is_cut: bool) -> list[Delta]:
        self._go_on(_State.OVER, rest)
        self.is_cut = is_cut
        return [] if is_cut else self._more("}" if self._seen else "{}")

    def _go_on(self, state: _State, rest: str) -> list[Delta]:
        self._state, self._text, self._read = state, rest, []
        return []

    def _more(self, text: str) -> list[Delta]:
        return [ToolArguments(self._index, text)] if text and self.has_begun else []
