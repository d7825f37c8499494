"""What chats and completions share: how an answer is sampled, where it ends, how many there are, how they are told."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from glm_worker.errors import RequestRefused
from glm_worker.server.checkpoint import Checkpoint
from glm_worker.server.fields import Items, Strict, between, conflict, only
from glm_worker.server.jobs.wishes import Wishes
from glm_worker.server.openai.bounds import (
    MAX_ANSWERS,
    MAX_BAD_WORD_CHARS,
    MAX_BAD_WORDS,
    MAX_DEADLINE_S,
    MAX_INT,
    MAX_LOGIT_BIAS,
    MAX_METADATA,
    MAX_METADATA_CHARS,
    MAX_METADATA_KEY_CHARS,
    MAX_STOP_CHARS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKENS,
)
from glm_worker.server.openai.fields import Label

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
StopStrings = Annotated[Items[StopString], Field(max_length=MAX_STOP_STRINGS)]
BadWord = Annotated[str, Field(min_length=1, max_length=MAX_BAD_WORD_CHARS)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
MetadataKey = Annotated[str, Field(max_length=MAX_METADATA_KEY_CHARS)]
MetadataText = Annotated[str, Field(max_length=MAX_METADATA_CHARS)]


class StreamOptions(Strict):
    include_usage: bool | None = Field(None, description="One more chunk before the end, with the usage.")
    continuous_usage_stats: bool | None = Field(None, description="The usage so far in every chunk.")
    include_obfuscation: bool | None = Field(None, description="No effect: nothing is padded.")


class GenerationRequest(Strict):
    """The parameters of both endpoints."""

    has_no_effect: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "user": (),
        "safety_identifier": (),
        "prompt_cache_key": (),
        "prompt_cache_retention": (),
        "store": (False,),
        "metadata": ({},),
        "service_tier": ("auto", "default"),
    }
    """Fields that are accepted and change nothing, each with the values that ask for nothing either."""

    refused: ClassVar[Mapping[str, str]] = {
        "extra_body": "it is an argument of clients; its fields belong into the body itself",
        "guided_grammar": "grammars are not taken; use a JSON schema, a regular expression or choices",
        "structured_outputs.grammar": "grammars are not taken; use a JSON schema, a regular expression or choices",
        "structured_outputs.structural_tag": "structural tags are not taken; use tools or a JSON schema",
        "prompt_logprobs": "log probabilities of the prompt are not computed",
        "chat_template": "the template is the checkpoint's",
    }
    """Fields of other servers that this one does not know, with what to do instead."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, between(1, MAX_ANSWERS)] = Field(None, description="How many answers.")
    max_tokens: Annotated[int | None, between(1, MAX_INT)] = Field(None, description="Default: what the prompt leaves.")
    min_tokens: Annotated[int | None, between(0, MAX_INT)] = Field(None, description="No end before as many.")
    temperature: Annotated[float | None, between(0, 2)] = Field(
        None, description="0 is greedy. Default of this and the next three: the checkpoint's."
    )
    top_p: Annotated[float | None, between(0, 1, without_low=True)] = None
    top_k: Annotated[int | None, between(-1, MAX_INT)] = Field(None, description="0 and -1: off.")
    min_p: Annotated[float | None, between(0, 1, without_high=True)] = None
    seed: Annotated[int | None, between(-(2**63), 2**63 - 1)] = Field(
        None, description="Answer number i has seed + i. Default: another one for each request."
    )
    frequency_penalty: Annotated[float | None, between(-2, 2)] = None
    presence_penalty: Annotated[float | None, between(-2, 2)] = None
    repetition_penalty: Annotated[float | None, between(0, 10, without_low=True)] = Field(
        None, description="1: off. Divides the logits of tokens of prompt and answer."
    )
    logit_bias: Annotated[
        dict[TokenId, Annotated[float, between(-100, 100)]] | None, Field(max_length=MAX_LOGIT_BIAS)
    ] = Field(None, description="Added to the logits of these token ids.")
    stop: StopString | StopStrings | None = Field(
        None, description="Looked for in all generated text, reasoning included."
    )
    stop_token_ids: Annotated[Items[int] | None, Field(max_length=MAX_STOP_TOKENS)] = Field(
        None, description="Token ids that end the answer, beside the model's own."
    )
    bad_words: Annotated[Items[BadWord] | None, Field(max_length=MAX_BAD_WORDS)] = Field(
        None, description="Texts that are never completed, in their tokens alone and after a space."
    )
    ignore_eos: bool | None = Field(None, description="Go on past the end of the turn, for measurements.")
    priority: Annotated[int | None, between(-MAX_INT, MAX_INT)] = Field(
        None, description="Lower goes first. Default: 0."
    )
    deadline_s: Annotated[float | None, between(0, MAX_DEADLINE_S, without_low=True)] = Field(
        None, description="Seconds from arrival; then the request is ended. The earlier first among equals in priority."
    )

    user: Label | None = Field(None, description="No effect.")
    safety_identifier: Label | None = Field(None, description="No effect.")
    prompt_cache_key: Label | None = Field(None, description="No effect.")
    prompt_cache_retention: Label | None = Field(None, description="No effect.")
    store: bool | None = Field(None, description="No effect: chats and completions are not stored.")
    metadata: Annotated[dict[MetadataKey, MetadataText] | None, Field(max_length=MAX_METADATA)] = Field(
        None, description="No effect."
    )
    service_tier: Label | None = Field(None, description="No effect.")

    skip_special_tokens: Annotated[bool | None, only(True)] = None
    include_stop_str_in_output: Annotated[bool | None, only(False)] = None

    @model_validator(mode="after")
    def _consistent(self) -> "GenerationRequest":
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "stream_options is only allowed together with stream: true")
        if self.min_tokens and self.answer_tokens is not None and self.min_tokens > self.answer_tokens:
            raise conflict(
                "min_tokens", f"min_tokens {self.min_tokens} is more than {self.max_tokens_name} {self.answer_tokens}"
            )
        return self

    @property
    def answer_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def max_tokens_name(self) -> str:
        return "max_tokens"

    @property
    def num_answers(self) -> int:
        return self.n or 1

    @property
    @abstractmethod
    def num_logprobs(self) -> int | None:
        """None: none; 0: of the tokens of the answer; k: of the k likeliest as well."""

    @property
    def wants_continuous_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)

    def ignored(self) -> Iterator[str]:
        """Give the names of what is said here and changes nothing."""
        for name, neutral in self.has_no_effect.items():
            value = getattr(self, name)
            if value is not None and value not in neutral:
                yield name
        if self.stream_options is not None and self.stream_options.include_obfuscation:
            yield "stream_options.include_obfuscation"


def wishes_of(request: GenerationRequest, checkpoint: Checkpoint) -> Wishes:
    """Return what a request says about its answers. Raises RequestRefused for tokens that the vocabulary lacks."""
    for number, token_id in enumerate(request.stop_token_ids or ()):
        _check_id(token_id, f"stop_token_ids[{number}]", checkpoint)
    bias = {int(token_id): bias for token_id, bias in (request.logit_bias or {}).items()}
    for token_id in bias:
        _check_id(token_id, "logit_bias", checkpoint)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return Wishes(
        max_tokens=request.answer_tokens,
        min_tokens=request.min_tokens or 0,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        frequency_penalty=request.frequency_penalty or 0.0,
        presence_penalty=request.presence_penalty or 0.0,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        logit_bias=bias,
        bad_words=tuple(request.bad_words or ()),
        stop_strings=stop,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        ignore_eos=bool(request.ignore_eos),
        num_logprobs=request.num_logprobs,
        num_answers=request.num_answers,
        priority=request.priority or 0,
        deadline_s=request.deadline_s,
        ignored=tuple(request.ignored()),
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
    )


def _check_id(token_id: int, param: str, checkpoint: Checkpoint) -> None:
    if not 0 <= token_id < checkpoint.vocab_size:
        raise RequestRefused(
            f"{param} has the token id {str(token_id)[:20]}; allowed are 0 to {checkpoint.vocab_size - 1}",
            param=param,
            code="invalid_value",
        )
