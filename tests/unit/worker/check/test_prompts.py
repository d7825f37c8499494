"""Prompts of a file, through the checkpoint's tokenizer and template."""

from pathlib import Path

import pytest

from glm_worker.check.prompts import MAX_PROMPT_TOKENS, built_in_prompts, prompts_of
from glm_worker.errors import ConfigError
from glm_worker.server.checkpoint import Checkpoint
from integration.tiny_models import NANO


@pytest.fixture(scope="module")
def nano() -> Checkpoint:
    return Checkpoint.read(NANO, name="", max_model_len=0)


def a_file(folder: Path, text: str) -> Path:
    path = folder / "prompts"
    path.write_text(text, encoding="utf-8")
    return path


def test_our_own_prompts_are_turns_of_the_template(nano: Checkpoint) -> None:
    texts = [nano.tokenizer.decode(prompt) for prompt in built_in_prompts(nano)]
    assert len(texts) >= 5
    assert all("<|user|>" in text for text in texts)
    assert any(len(prompt) > 256 for prompt in built_in_prompts(nano)), "one is computed in several steps"


def test_a_line_is_a_user_or_an_object(tmp_path: Path, nano: Checkpoint) -> None:
    path = a_file(tmp_path, 'Hello\n\n{"messages": [{"role": "user", "content": "Hello"}]}\n{"prompt": "Hello"}\n')
    user, chat, plain = prompts_of(path, nano)
    assert user == chat
    assert nano.tokenizer.decode(plain) == "Hello"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt": ', "line 2 begins like a JSON object and is none"),
        ('{"text": "Hello"}', "line 2 must have either messages, a list of objects, or prompt"),
        ('{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}', "line 2 must have either"),
        ('{"messages": "Hello"}', "line 2 must have either"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path: Path, nano: Checkpoint, line: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        prompts_of(a_file(tmp_path, f"Hello\n{line}\n"), nano)


def test_a_file_without_prompts_and_one_that_is_missing_are_refused(tmp_path: Path, nano: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="has no prompts"):
        prompts_of(a_file(tmp_path, "\n"), nano)
    with pytest.raises(ConfigError, match="cannot be read"):
        prompts_of(tmp_path / "none", nano)


def test_a_long_prompt_keeps_its_beginning(tmp_path: Path, nano: Checkpoint) -> None:
    (prompt,) = prompts_of(a_file(tmp_path, "many words " * 2000), nano)
    assert len(prompt) == MAX_PROMPT_TOKENS
