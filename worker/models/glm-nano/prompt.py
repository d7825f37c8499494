"""Render a conversation through chat_template.jinja, the way the worker does: plain sandboxed jinja2.

Training, evaluation and serving share this one template, so none of them can see a prompt the others do not.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, object]
Tool = dict[str, object]

FOLDER = Path(__file__).resolve().parent


def _tojson(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise_exception(message: str) -> str:
    raise ValueError(message)


@cache
def _template() -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string((FOLDER / "chat_template.jinja").read_text(encoding="utf-8"))


def render(
    messages: Sequence[Message], tools: Sequence[Tool] = (), *, thinking: bool = True, generate: bool = False
) -> str:
    """Return the text of a conversation; with `generate`, up to where the assistant must continue."""
    return _template().render(
        messages=list(messages), tools=list(tools) or None, enable_thinking=thinking, add_generation_prompt=generate
    )
