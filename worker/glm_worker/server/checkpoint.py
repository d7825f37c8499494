"""What the server needs to know of a checkpoint: tokenizer, chat template, limits, end tokens, default sampling."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from glm_edge.version import VERSION
from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.model.config import ModelConfig
from glm_worker.server.structured.calls import CallTokens
from glm_worker.server.text.chat import ChatTemplate
from glm_worker.server.text.control_tokens import disarmer
from glm_worker.server.text.lexer import THINK_TAGS, TOOL_TAGS, Tag, tag_ids
from glm_worker.server.text.tokenizer import Tokenizer
from glm_worker.server.thinking.traits import TemplateTraits, traits_of

_JSON_BYTES_PER_BYTE = 6  # "\\u000a" for a newline
_JSON_BYTES_PER_TOKEN = 40  # a token is 3 to 5 bytes of text; in JSON that escapes all that is not ASCII, 6 to 12
_TEXTS = (".json", ".jinja")
_JSON_MARGIN_BYTES = 2**20  # for what templates leave out, such as the reasoning of earlier turns


class GenerationDefaults(BaseModel):
    """generation_config.json: how the checkpoint's authors want it sampled. Other keys of the file are not ours."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    do_sample: bool = True  # unlike transformers, which is greedy unless told: a server that says nothing samples
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    eos_token_id: Annotated[
        tuple[int, ...], BeforeValidator(lambda ids: (ids,) if isinstance(ids, int) else ids or ())
    ] = ()


@dataclass(frozen=True)
class Checkpoint:
    """One model folder, read once at start.

    fingerprint: who has the same makes the same text of the same ids, and the same ids of the same prompt.
    """

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate
    defaults: GenerationDefaults
    stop_token_ids: tuple[int, ...]
    vocab_size: int
    max_model_len: int
    think_tags: dict[int, Tag]
    tool_tags: dict[int, Tag]
    fingerprint: str = ""

    @property
    def is_base(self) -> bool:
        """Whether it only goes on with texts: it has no chat template."""
        return self.template.is_missing

    @cached_property
    def traits(self) -> TemplateTraits:
        """What the chat template can do about thinking."""
        return traits_of(lambda messages, variables: self.template.render(messages, (), variables))

    @cached_property
    def call_tokens(self) -> CallTokens:
        """The ids that tool calls are written with."""
        return CallTokens(self.tokenizer.token_id)

    @cached_property
    def disarm(self) -> Callable[[str], str]:
        """What makes the control tokens in a text of a client text."""
        return disarmer(self.tokenizer.added_tokens, normalized=self.tokenizer.normalized)

    @cached_property
    def disarm_turn(self) -> Callable[[str], str]:
        """The same for what an assistant said, of which templates take the thought, to its last `</think>`, apart."""
        tokens, tags = self.tokenizer.added_tokens, [tag.value for tag in THINK_TAGS]
        disarm_thought = disarmer(tokens, keep=tags, normalized=self.tokenizer.normalized)

        def disarm_turn(text: str) -> str:
            thought, end, answer = text.rpartition(Tag.END_THINK.value)
            return disarm_thought(thought) + end + self.disarm(answer)

        return disarm_turn

    @property
    def max_prompt_json_bytes(self) -> int | None:
        """How long the JSON of a request whose prompt fits can be, about; None when the tokenizer gives no bound."""
        longest = self.tokenizer.longest_token_bytes
        if longest is None:
            return None
        return self.max_model_len * min(longest * _JSON_BYTES_PER_BYTE, _JSON_BYTES_PER_TOKEN) + _JSON_MARGIN_BYTES

    def check_length(self, text: str, param: str) -> None:
        """Refuse a text that cannot fit before the work of encoding it. Raises RequestRefused, naming the parameter."""
        min_tokens = self.tokenizer.min_tokens(text, self.max_model_len)
        if min_tokens >= self.max_model_len:
            raise RequestRefused(
                f"this model's maximum context length is {self.max_model_len} tokens; the {param} alone has at least"
                f" {min_tokens}",
                param=param,
                code="context_length_exceeded",
            )

    @classmethod
    def read(cls, folder: Path, *, name: str, max_model_len: int) -> "Checkpoint":
        """Read everything but the weights. name: what clients call the model, empty for the folder's name.

        max_model_len: 0 for what the checkpoint was trained for. Raises ConfigError on a folder that cannot be served.
        """
        config = ModelConfig.read(folder)
        tokenizer = Tokenizer.load(folder)
        defaults = _generation_defaults(folder)
        stop_token_ids = defaults.eos_token_id or config.eos_token_ids
        if not stop_token_ids:
            raise ConfigError(f"{folder}: neither generation_config.json nor config.json has an eos_token_id")
        if max_model_len > config.max_position_embeddings:
            most = config.max_position_embeddings
            raise ConfigError(f"max_model_len {max_model_len} is more than the {most} tokens the model was made for")
        return cls(
            name=name or folder.resolve().name,
            tokenizer=tokenizer,
            template=ChatTemplate.load(folder),
            defaults=defaults,
            stop_token_ids=stop_token_ids,
            vocab_size=config.vocab_size,
            max_model_len=max_model_len or config.max_position_embeddings,
            think_tags=tag_ids(tokenizer, THINK_TAGS),
            tool_tags=tag_ids(tokenizer, TOOL_TAGS),
            fingerprint=fingerprint_of(folder),
        )


def fingerprint_of(folder: Path) -> str:
    """Return a digest of the folder's text files, of the names and sizes of its weights, and of this program.

    Weights of the same names and sizes are taken for the same: to read them all would take minutes at each start.
    """
    digest = sha256(VERSION.encode())
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        if path.suffix in _TEXTS:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _generation_defaults(folder: Path) -> GenerationDefaults:
    path = folder / "generation_config.json"
    if not path.exists():
        return GenerationDefaults()
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return GenerationDefaults.model_validate({key: value for key, value in raw.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{path}: {'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}"
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
