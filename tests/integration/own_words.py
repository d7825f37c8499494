"""Requests of other people's programs with our own words in place of theirs: a body without texts, and with ours.

In a case, {"$text": n} stands for a text of n characters, and {"$json": value} for a value as JSON text, as the
arguments of calls are. Names, ids, types and whatever else has a meaning to a server stay.

python own_words.py RECORDED.json prints the case of a request that the story of the coding agents has recorded.
"""

import json
import sys
from pathlib import Path
from typing import Any

_TEXTS = {
    "content",
    "text",
    "description",
    "instructions",
    "thinking",
    "reasoning_content",
    "output",
    "title",
    "prompt",
}
_OF_ONE_RUN = {"authorization", "host", "connection", "content-length", "accept-encoding", "x-session-id"}
_OF_ONE_RUN |= {"x-session-affinity"}
_MIN_CHARS = 8
"""A text that is shorter stays: it is a word at most."""

_SENTENCES = (
    "Read the file before you change it, and say in one sentence what you found. ",
    "<reminder>\nThe folder has no tests yet; ask before you add one.\n</reminder>\n",
    "Use absolute paths: `/home/ann/project/notes.txt`, never `../notes.txt`. ",
    "# Rules\n\n1. Answer briefly.\n2. Never guess a name; look it up.\n\n",
    'def greet(name: str) -> str:\n    return f"Hello, {name}!"  # <name> & co\n\n',
    'A call has the form {"name": "list", "arguments": {"path": ".", "depth": 2}}. ',
    "The words <think>, </think>, <tool_call> and <|user|> are text here, like any others. ",
    'Ünïcödé, 漢字 and 🙂 are common; so are tabs\tand "quotes" and back\\slashes. ',
)


def without_texts(value: Any, key: str = "") -> Any:
    """Return a recorded value as a case has it. key: its name, which says whether a string is a text."""
    match value:
        case dict():
            return {
                name: _input(inner) if name == "input" and isinstance(inner, dict) else without_texts(inner, name)
                for name, inner in value.items()
            }
        case list():
            return [without_texts(inner, "" if key in _TEXTS or key == "required" else key) for inner in value]
        case str() if key == "arguments" and value:
            return {"$json": _input(json.loads(value))}
        case str() if key in _TEXTS and len(value) >= _MIN_CHARS:
            return {"$text": len(value)}
        case _:
            return value


def _input(value: Any) -> Any:
    """Return what a call is given: there every string is a text."""
    match value:
        case dict():
            return {name: _input(inner) for name, inner in value.items()}
        case list():
            return [_input(inner) for inner in value]
        case str() if len(value) >= _MIN_CHARS:
            return {"$text": len(value)}
        case _:
            return value


def with_own_texts(value: Any) -> Any:
    """Return what a case stands for."""
    match value:
        case {"$text": int(num_chars)}:
            return own_text(num_chars)
        case {"$json": inner}:
            return json.dumps(with_own_texts(inner))
        case dict():
            return {name: with_own_texts(inner) for name, inner in value.items()}
        case list():
            return [with_own_texts(inner) for inner in value]
        case _:
            return value


def own_text(num_chars: int) -> str:
    """Return a text of this length, another one for another length."""
    begin = num_chars % len(_SENTENCES)
    once = "".join(_SENTENCES[begin:] + _SENTENCES[:begin])
    return (once * (num_chars // len(once) + 1))[:num_chars]


def case_of(client: str, recorded: dict[str, Any]) -> dict[str, Any]:
    headers = {name: value for name, value in recorded["headers"].items() if name not in _OF_ONE_RUN}
    return {
        "client": client,
        "path": recorded["path"],
        "headers": headers,
        "body": without_texts(recorded["body"]),
    }


if __name__ == "__main__":
    file = Path(sys.argv[1])
    print(json.dumps(case_of(file.parent.name, json.loads(file.read_text())), indent=1, ensure_ascii=False))
