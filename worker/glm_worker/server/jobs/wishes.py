"""What a request says about its answer, beside its prompt, in nobody's words."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """None: not said, so the checkpoint's default counts. Surfaces have checked the ranges."""

    max_tokens: int | None = None  # None: what the prompt leaves
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None  # 0 and below: off
    min_p: float | None = None
    seed: int | None = None  # answer number i has seed + i
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    unpenalised_ids: tuple[int, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[str, ...] = ()
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    num_logprobs: int | None = None  # None: none; 0: of the chosen tokens; k: of the k best as well
    num_answers: int = 1
    priority: int = 0  # lower goes first
    deadline_s: float | None = None  # from arrival; then the request is ended
    ignored: tuple[str, ...] = ()  # fields of the request that have no effect here, for `x-glm-ignored`
    stream: bool = False
    include_usage: bool = False


@dataclass(frozen=True, kw_only=True)
class ParamNames:
    """How a surface calls what shared code may have to refuse."""

    prompt: str = "messages"
    max_tokens: str = "max_tokens"
    tools: str = "tools"
    thinking: str = "thinking"
    answer_format: str = "response_format"
    bad_words: str = "bad_words"
    stop_token_ids: str = "stop_token_ids"  # noqa: S105 - tokens of a model
    logit_bias: str = "logit_bias"


CHAT_NAMES = ParamNames()
