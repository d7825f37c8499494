"""benchmarks/models.py: what it makes is served, ends its answers by itself, and is made once."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from tokenizers import Tokenizer

from glm_worker.models import resolve
from integration.pods import Group, running_group

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/models.py"
ANSWER_LIMIT_S = 180.0

pytestmark = pytest.mark.long  # nothing of the product, and a group of a large model


@pytest.fixture(scope="module")
def models() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("models_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def group(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    folder = tmp_path_factory.mktemp("models") / "long-context"
    assert models.make(models.KINDS["long-context"], folder)
    with running_group(folder.parent, model=folder) as group:
        group.serving()
        yield group


def ask(group: Group, prompt: str, **fields: object) -> dict[str, object]:
    body = {"model": "long-context", "messages": [{"role": "user", "content": prompt}], **fields}
    response = httpx.post(f"http://{group.leader.host}:8000/v1/chat/completions", json=body, timeout=ANSWER_LIMIT_S)
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("thinks", [True, False])
def test_an_answer_without_a_limit_ends_by_itself(
    models: ModuleType, group: Group, temperature: int, *, thinks: bool
) -> None:
    options = {"chat_template_kwargs": {"enable_thinking": thinks}, "temperature": temperature, "seed": 1}
    reply = ask(group, "Write a program.", **options)
    choice = reply["choices"][0]  # type: ignore[index]
    assert choice["finish_reason"] == "stop"
    num_tokens = models.NUM_WORDS + 1 + (models.NUM_THOUGHTS + 2 if thinks else 0)
    assert reply["usage"]["completion_tokens"] == num_tokens  # type: ignore[index]
    assert bool(choice["message"].get("reasoning_content")) == thinks
    assert choice["message"]["content"]


def test_a_prompt_of_a_hundred_thousand_characters_is_answered(group: Group) -> None:
    prompt = "The weather in Paris is sunny. " * 3300
    assert len(prompt) > 100_000
    reply = ask(group, prompt, max_tokens=4)
    assert reply["usage"]["prompt_tokens"] > 10_000  # type: ignore[index]
    assert reply["usage"]["completion_tokens"] == 4  # type: ignore[index]


def test_a_folder_that_is_whole_is_left_alone_and_a_broken_one_is_made_anew(models: ModuleType, tmp_path: Path) -> None:
    kind = models.KINDS["long-context"]
    assert models.make(kind, tmp_path)
    weights = tmp_path / "model.safetensors"
    before = weights.stat()
    assert not models.make(kind, tmp_path)
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    assert models.make(kind, tmp_path)
    assert weights.read_bytes() == intact
    assert models.make(replace(kind, seed=1), tmp_path)
    assert weights.read_bytes() != intact


def test_a_larger_vocabulary_gives_every_text_back_and_keeps_the_ids(models: ModuleType, tmp_path: Path) -> None:
    config = models.KINDS["long-context"].config | {"vocab_size": 6000}
    assert models.make(replace(models.KINDS["long-context"], config=config), tmp_path)
    nano = Tokenizer.from_file(str(resolve("builtin://glm-nano") / "tokenizer.json"))
    larger = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert larger.get_vocab_size() == 6000
    assert nano.get_vocab().items() <= larger.get_vocab().items()
    text = 'über <think>12+30</think>\n\n\t{"a": [1, 2]} 日本<|user|>def function(self):'
    ids = larger.encode(text).ids
    assert larger.decode(ids, skip_special_tokens=False) == text
    assert len(ids) < len(nano.encode(text).ids)
