"""The tokenizer of glm-nano, and so every id in its weights, comes out the same when it is made again."""

import importlib
from pathlib import Path

import pytest
from tokenizers import Tokenizer

FOLDER = Path(__file__).parents[2] / "worker/models/glm-nano"


@pytest.mark.long  # made of 20,000 samples; test_nano_tasks.py has what decides them
def test_before_the_chains_nothing_is_drawn_that_the_tokenizer_was_not_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    made = importlib.import_module("make_tokenizer").make_tokenizer()
    assert made.get_vocab() == Tokenizer.from_file(str(FOLDER / "tokenizer.json")).get_vocab()
