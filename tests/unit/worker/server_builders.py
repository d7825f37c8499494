"""Builders for tests of the server: the shipped tokenizer, and raw outputs as the tokens a model would sample."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from glm_worker.models import resolve
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.text.argument_types import Tools, parameters_of
from glm_worker.server.text.deltas import Answer, Delta, assemble
from glm_worker.server.text.lexer import THINK_TAGS, TOOL_TAGS, Tag, tag_ids
from glm_worker.server.text.output import OutputReader
from glm_worker.server.text.parsing import Grammar, State
from glm_worker.server.text.stop_words import StopWords
from glm_worker.server.text.tokenizer import Tokenizer

WEATHER: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS: Tools = {"get_weather": parameters_of(WEATHER), "now": parameters_of(None)}


@cache
def checkpoint() -> Checkpoint:
    return Checkpoint.read(resolve("builtin://glm-nano"), name="", max_model_len=0)


def tokenizer() -> Tokenizer:
    return checkpoint().tokenizer


def stop_id(token: str = "<|user|>") -> int:
    found = tokenizer().token_id(token)
    assert found is not None
    return found


def a_reader(
    tools: Tools = TOOLS, state: State = State.CONTENT, stops: Sequence[str] = (), **of_grammar: bool
) -> OutputReader:
    tags: dict[int, Tag] = tag_ids(tokenizer(), THINK_TAGS + TOOL_TAGS if tools else THINK_TAGS)
    return OutputReader(
        tokenizer(),
        tags,
        lambda: Grammar(state, tools, **of_grammar),
        stops=StopWords(stops),
        stop_token_ids=checkpoint().stop_token_ids,
    )


def read(reader: OutputReader, groups: Sequence[Sequence[int]], *, ended: Any = "stop") -> list[Delta]:
    """Return all deltas of an answer whose tokens arrive in these groups; the last one ends it."""
    deltas: list[Delta] = []
    for number, group in enumerate(groups):
        deltas += reader.feed(group, ended if number == len(groups) - 1 else None)
    return deltas


def answer_to(raw: str, *, eos: str = "<|user|>", **of: Any) -> tuple[Answer, OutputReader]:
    """Return the answer in a raw output that the model ended itself."""
    reader = a_reader(**of)
    return assemble(read(reader, [[*tokenizer().encode(raw), stop_id(eos)]])), reader
