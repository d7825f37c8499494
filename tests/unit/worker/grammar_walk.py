"""Answers that a grammar allows, chosen at random from its masks, over the vocabulary of the shipped model."""

from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import tokenizers
import xgrammar

from glm_worker.model.grammar_vocabulary import grammar_vocabulary, token_bytes
from glm_worker.server.structured.calls import CallTokens
from glm_worker.server.structured.process import compile_recipe
from glm_worker.server.structured.recipe import Recipe

NANO = Path(__file__).parents[3] / "worker" / "models" / "glm-nano"
STOPS = frozenset({1003, 1010, 1012})
_CLOSING = (b'"', b"}", b"]", b'",', b", ", b"@", b".com")


@cache
def compiler() -> xgrammar.GrammarCompiler:
    return xgrammar.GrammarCompiler(grammar_vocabulary(NANO), max_threads=1, cache_enabled=False)


@cache
def vocabulary() -> list[bytes]:
    return token_bytes(NANO, 1024)


@cache
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json"))


@cache
def call_tokens() -> CallTokens:
    return CallTokens(tokenizer().token_to_id)


def compiled(recipe: Recipe) -> xgrammar.CompiledGrammar:
    return compile_recipe(compiler(), recipe)


def walk(grammar: xgrammar.CompiledGrammar, random: Random, most: int = 300) -> list[int] | None:
    """Return the tokens of one answer that ends by a stop token; None when it does not end in time.

    The longer it gets the more it is drawn to tokens that close something.
    """
    matcher = xgrammar.GrammarMatcher(grammar)
    mask = xgrammar.allocate_token_bitmask(1, len(vocabulary()))
    token_ids: list[int] = []
    while len(token_ids) < most:
        matcher.fill_next_token_bitmask(mask)
        allowed = np.flatnonzero(np.unpackbits(mask[0].numpy().view(np.uint8), bitorder="little")).tolist()
        assert allowed, "a grammar must always allow something"
        others = [token_id for token_id in allowed if token_id not in STOPS]
        haste = 0.2 + len(token_ids) / most
        if len(others) < len(allowed) and (not others or random.random() < haste):
            return token_ids
        closing = [token_id for token_id in others if vocabulary()[token_id].startswith(b"\xff")]
        closing = closing or [token_id for token_id in others if vocabulary()[token_id].startswith(_CLOSING)]
        token_ids.append(random.choice(closing if closing and random.random() < haste else others))
        assert matcher.accept_token(token_ids[-1])
    return None


def text_of(token_ids: list[int]) -> str:
    """Return what the tokens spell, tags included."""
    return b"".join(vocabulary()[token_id].removeprefix(b"\xff") for token_id in token_ids).decode()
