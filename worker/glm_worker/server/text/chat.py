"""Conversations to prompts: the checkpoint's own chat template, rendered as transformers renders it.

The template is a program from the checkpoint, so it runs in jinja2's immutable sandbox.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.server.refusals import shortened
from glm_worker.server.text.control_tokens import as_sent, ascii_only

Message = dict[str, Any]

_HERE = "\udc01"  # where the answer goes on: half of a surrogate pair, which no text of a request has


class ChatTemplate:
    """A compiled template. Safe to render from several threads at once."""

    is_missing = False

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """special_tokens: by role (`eos_token`, …), as templates call them. Raises ConfigError on a syntax error."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"chat template, line {error.lineno}: {error.message}") from error
        self._special_tokens = dict(special_tokens)

    @classmethod
    def load(cls, folder: Path) -> "ChatTemplate":
        """Read chat_template.jinja, or the chat_template of tokenizer_config.json where older checkpoints keep it.

        A folder without any is that of a base model: its template refuses every chat.
        """
        path = folder / "tokenizer_config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        file = folder / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
        if not isinstance(source, str):
            return _NoTemplate()
        return cls(
            source, {role: text for role, value in config.items() if (text := _token_text(role, value)) is not None}
        )

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        variables: Mapping[str, bool] | None = None,
        *,
        goes_on: bool = False,
    ) -> str:
        """Return the prompt up to where the assistant goes on.

        variables: what the template is told beside the messages, as `enable_thinking`; what is left out it decides.
        goes_on: the last message is the assistant's, and the prompt ends with its text, as it is.

        Raises RequestRefused when the template refuses the messages, or fails on them, whatever the cause.
        """
        values: dict[str, Any] = {**self._special_tokens, "add_generation_prompt": not goes_on, "documents": None}
        values |= variables or {}
        if goes_on:
            *before, last = messages
            messages = [*before, {**last, "content": last["content"] + _HERE}]
        try:
            prompt = self._template.render(messages=list(messages), tools=list(tools) or None, **values)
        except Exception as error:  # it is a program of the checkpoint, and may fail as any program does
            raise RequestRefused(
                f"the model's chat template refuses these messages: {shortened(_as_sent(_cause(error)), 300)}",
                param="messages",
            ) from error
        if not goes_on:
            return prompt
        prompt, here, _ = prompt.partition(_HERE)
        if not here:
            raise RequestRefused(
                "the model's chat template does not show the text of the last message, so it cannot be continued",
                param="messages",
            )
        return prompt


class _NoTemplate(ChatTemplate):
    """What a base model has in place of a chat template."""

    is_missing = True

    def __init__(self) -> None:
        super().__init__("", {})

    def render(self, *_: object, **__: object) -> str:
        raise RequestRefused(
            "this is a base model: it has no chat template, so it answers no chats; it completes texts at"
            " /v1/completions",
            param="model",
            code="chat_not_supported",
        )


def in_call_order(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with the tool results after each assistant turn in the order of its calls.

    The GLM format has no call ids: a result belongs to a call by its place. Where not every result has a call of its
    own in the message before, the order sent is all that is known, and it is kept.
    """
    ordered: list[Message] = []
    for is_results, run in groupby(messages, lambda message: message["role"] == "tool"):
        run_of = list(run)
        ordered += _by_call(run_of, ordered[-1] if ordered else {}) if is_results else run_of
    return ordered


def _by_call(results: list[Message], before: Message) -> list[Message]:
    call_ids = [call.get("id") for call in before.get("tool_calls") or ()]
    rank_of = {call_id: rank for rank, call_id in enumerate(call_ids) if call_id}
    answered = [result.get("tool_call_id") for result in results]
    is_clear = len(rank_of) == len(call_ids) and len(set(answered)) == len(answered) and set(answered) <= set(rank_of)
    return sorted(results, key=lambda result: rank_of[result["tool_call_id"]]) if is_clear else results


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks for training what the assistant wrote; a prompt has it as it is."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _as_sent(text: str) -> str:
    return as_sent(text).replace(_HERE, "")


def _cause(error: Exception) -> str:
    """Return what went wrong, with its kind where the template did not say it itself."""
    if isinstance(error, jinja2.TemplateError):
        return str(error.message or type(error).__name__)  # templates raise whatever they like
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _token_text(role: str, value: object) -> str | None:
    """Return the text of a special token of tokenizer_config.json, which has it plain or as an object."""
    if not role.endswith("_token"):
        return None
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own tojson escapes HTML and knows no ensure_ascii; templates are written for transformers'."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return ascii_only(text) if ensure_ascii else text


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
