"""What is computed on both sides: prompts built in, or those of a file, as token ids of the checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.server.checkpoint import Checkpoint

MAX_PROMPT_TOKENS = 512  # of one prompt; hidden states of every layer and token are kept
_LONG = (
    "A lighthouse keeper writes down each evening what passed: ships by name and flag, the wind, the state of the lamp,"
    " and whatever the sea left on the rocks. On the ninth of March there were eleven ships, four under sail, and a"
    " gale from the north-west that broke two panes. On the tenth nobody passed. "
)
_CHATS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "What is 17 + 25?"}],
    [{"role": "user", "content": "Write three sentences about rain in the mountains, and end with a question."}],
    [{"role": "user", "content": "Переведи на английский: «Добрый вечер, который час?» 晚上好，现在几点了？"}],
    [
        {"role": "system", "content": "You answer in JSON and in nothing else."},
        {"role": "user", "content": 'What is wrong here? {"a": [1, 2, }'},
        {"role": "assistant", "content": '{"answer": "the array does not end"}'},
        {"role": "user", "content": "And what would be right?"},
    ],
    [{"role": "user", "content": "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n\nMake it fast."}],
    [{"role": "user", "content": _LONG * 3 + "How many ships passed on the ninth, and how many were under sail?"}],
)
_TEXTS = ("The capital of France is", "def fib(n):\n    ", _LONG * 3, "1, 1, 2, 3, 5, 8, 13,")  # for base models


def built_in_prompts(checkpoint: Checkpoint) -> list[list[int]]:
    """Return the token ids of our own prompts, rendered by the checkpoint's template; a base model gets plain texts."""
    if checkpoint.is_base:
        return _cut([checkpoint.tokenizer.encode(text) for text in _TEXTS])
    return _cut([_rendered(checkpoint, messages, "built in") for messages in _CHATS])


def prompts_of(path: Path, checkpoint: Checkpoint) -> list[list[int]]:
    """Return the token ids of the prompts in a file, one a line. Raises ConfigError, naming the line.

    A line is an object with `messages` or with `prompt`, as requests have them, or else plain text: of a user, or for a
    base model the prompt itself.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the prompts in {path} cannot be read: {error}") from error
    prompts = [
        _of_line(line, f"{path}, line {number}", checkpoint) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not prompts:
        raise ConfigError(f"{path} has no prompts; one a line is needed")
    return _cut(prompts)


def _of_line(line: str, where: str, checkpoint: Checkpoint) -> list[int]:
    if not line.lstrip().startswith("{"):
        if checkpoint.is_base:
            return checkpoint.tokenizer.encode(line)
        return _rendered(checkpoint, [{"role": "user", "content": line}], where)
    try:
        said = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where} begins like a JSON object and is none: {error}") from error
    prompt, messages = said.get("prompt"), said.get("messages")
    if isinstance(prompt, str) and prompt and messages is None:
        return checkpoint.tokenizer.encode(prompt)
    if isinstance(messages, list) and messages and all(isinstance(each, dict) for each in messages) and prompt is None:
        return _rendered(checkpoint, messages, where)
    raise ConfigError(f"{where} must have either messages, a list of objects, or prompt, a text")


def _rendered(checkpoint: Checkpoint, messages: Sequence[dict[str, Any]], where: str) -> list[int]:
    try:
        text = checkpoint.template.render(messages, ())
    except RequestRefused as error:
        raise ConfigError(f"prompt ({where}): {error.message}") from error
    return checkpoint.tokenizer.encode_prompt(text)


def _cut(prompts: list[list[int]]) -> list[list[int]]:
    """Keep the beginning of long prompts."""
    return [prompt[:MAX_PROMPT_TOKENS] for prompt in prompts if prompt]
