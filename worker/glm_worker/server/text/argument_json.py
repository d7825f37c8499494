"""How the text of an argument becomes JSON, by the type that its tool declares.

JSON is passed on as the model wrote it: numbers keep their spelling and their size. What can only be a string is passed
on as it comes; anything else is held until it is closed.
"""

import ast
import json
import re

import msgspec
from pydantic_core import from_json

from glm_worker.server.text.argument_types import ANYTHING, STRING, ArgumentType, json_types

_LITERALS = {"true": "boolean", "false": "boolean", "null": "null"}
_PYTHONS = {"True": "true", "False": "false", "None": "null"}
_MOST_PYTHON = 16 * 2**10  # characters of a Python literal; its parser takes 10 ms for so many
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_BEGIN, _COLON, _COMMA = (re.compile(rf"[ \t\r\n]*{sign}[ \t\r\n]*") for sign in (r"\{", ":", ","))
_CUT = "EOF while parsing"  # how pydantic tells a text that ends too early from one that is wrong
_ESCAPES = frozenset("\n\\'\"abfnrtvxNuU01234567")  # that Python knows


def json_string(text: str) -> str:
    return msgspec.json.encode(text).decode()


def argument_json(text: str, of: ArgumentType) -> str:
    """Return the JSON text of a whole value. What is not JSON, or is a string by its schema, becomes a JSON string."""
    bare = text.strip()
    if of.names == STRING or bare in of.words:
        return json_string(text)
    found = _read(bare, of)
    if found is None:
        return json_string(text)
    json_text, value = found
    if "string" in of.names:
        is_other = of == ANYTHING or json_types(value) & (of.names - STRING)
        return json_text if is_other else json_string(text)
    if isinstance(value, str) and (inner := _read(value.strip(), of)) and json_types(inner[1]) & of.names:
        return inner[0]  # "42" for a number
    return json_text


def can_only_be_a_string(begin: str, of: ArgumentType) -> bool:
    """Whether every value that begins like this becomes a JSON string of its text, however it goes on."""
    if "string" not in of.names:
        return False
    if of.names == STRING:
        return True
    bare = begin.strip()
    if not bare:
        return False
    match bare[0]:
        case "{":
            return "object" not in of.names
        case "[":
            return "array" not in of.names
        case '"':
            return of != ANYTHING
        case first if first.isdigit() or first == "-":
            return not of.names & {"number", "integer"}
        case _:
            return not any(word.startswith(bare) for word in _literals(of))


def without_cut(text: str) -> str | None:
    """Return the JSON text of an object that was cut, with those of its members that are whole.

    None where nothing was cut: it is whole JSON, or no beginning of an object.
    """
    try:
        from_json(text)
    except ValueError as error:
        is_cut = str(error).startswith(_CUT) and text.lstrip().startswith("{")
        return whole_members(text) if is_cut else None
    return None


def whole_members(text: str) -> str:
    """Return an object that was cut, or is wrong from some place on, up to its last whole member before that."""
    decode = json.JSONDecoder().raw_decode
    end = None
    try:
        at = _past(_BEGIN, text, 0)
        while True:
            _, at = decode(text, at)
            _, at = decode(text, _past(_COLON, text, at))
            end = at
            at = _past(_COMMA, text, at)
    except (ValueError, RecursionError):
        return "{}" if end is None else text[:end] + "}"


def _past(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    if found is None:
        raise ValueError
    return found.end()


class ArgumentWriter:
    """One value on its way to JSON. The texts it returns, joined, are what argument_json says of the whole."""

    def __init__(self, of: ArgumentType) -> None:
        self._type = of
        self._held: list[str] = []  # while it may still be something else than a string
        self._begin = ""  # of what is held; enough to tell
        self._is_string = False

    def add(self, text: str) -> str:
        """Return the JSON text that is certain now."""
        if self._is_string:
            return _inside(text)
        self._held.append(text)
        if len(self._begin) < _ENOUGH:
            self._begin = (self._begin + text).lstrip()[:_ENOUGH]
            self._is_string = can_only_be_a_string(self._begin, self._type)
        if not self._is_string:
            return ""
        return '"' + _inside("".join(self._held))

    def close(self) -> str:
        """Return the rest of the value."""
        return '"' if self._is_string else argument_json("".join(self._held), self._type)


_ENOUGH = 64  # characters that tell any literal from a longer text that begins with it


def _inside(text: str) -> str:
    return json_string(text)[1:-1]


def _literals(of: ArgumentType) -> list[str]:
    """Return the words that a value of this type may be without being a string."""
    words = [word for word, name in _LITERALS.items() if name in of.names]
    return words if of == ANYTHING else words + [python for python, word in _PYTHONS.items() if word in words]


def _read(bare: str, of: ArgumentType) -> tuple[str, object] | None:
    """Return a text as JSON, and its value; None when it is none. Python's literals count where a type is declared."""
    word = _PYTHONS.get(bare)
    if word is not None and of != ANYTHING and ("string" not in of.names or _LITERALS[word] in of.names):
        bare = word
    try:
        return bare, msgspec.json.decode(bare)
    except (msgspec.DecodeError, RecursionError):
        return None if "string" in of.names else _read_python(bare)


def _read_python(bare: str) -> tuple[str, object] | None:
    """Return a list or dict that is written as in Python, `{'a': True}`, as JSON, and its value."""
    if not bare.startswith(("[", "{")) or len(bare) > _MOST_PYTHON:
        return None
    if not _ESCAPES.issuperset(_ESCAPE.findall(bare)):  # Python would warn, and keep the backslash
        return None
    try:
        value = ast.literal_eval(bare)
        if not _is_json(value):
            return None
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()  # fails on half a surrogate pair, which no answer can hold
        return text, value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_json(value: object) -> bool:
    match value:
        case dict():
            return all(isinstance(key, str) and _is_json(each) for key, each in value.items())
        case list():
            return all(map(_is_json, value))
        case _:
            return value is None or isinstance(value, str | int | float)
