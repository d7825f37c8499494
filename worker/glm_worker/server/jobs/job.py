"""One answer for the engine to write: all that is needed to run it, and to run it again. No I/O, any thread."""

from collections.abc import Mapping
from dataclasses import dataclass

from glm_edge.frames import AnswerSoFar
from glm_worker.errors import RequestRefused
from glm_worker.messages import EngineLimits
from glm_worker.request import AnswerGrammar, EngineRequest, SamplingParams, Thought, TokenIds
from glm_worker.server.jobs.wishes import CHAT_NAMES, ParamNames
from glm_worker.server.text.argument_types import Tools
from glm_worker.server.text.lexer import Tag
from glm_worker.server.text.output import OutputGrammar, OutputReader
from glm_worker.server.text.parsing import Grammar, PlainText, State
from glm_worker.server.text.stop_words import StopWords
from glm_worker.server.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Room:
    """How many tokens prompt and answer of one request may have together, and what bounds them, if not the model.

    Clients and proxies look for the beginning of its sentence in errors, to make prompts shorter or ask elsewhere.
    """

    num_tokens: int
    bound: str = ""

    def __str__(self) -> str:
        sentence = f"this model's maximum context length is {self.num_tokens} tokens"
        return f"{sentence}, for {self.bound} {self.num_tokens} tokens" if self.bound else sentence


def room_of(limits: EngineLimits) -> Room:
    """Return what a generation can hold of one request: its context, or its smaller cache."""
    cache = Room(limits.num_blocks * limits.block_size, bound="the KV cache of this group holds")
    return min(Room(limits.max_model_len), cache, key=lambda room: room.num_tokens)


@dataclass(frozen=True, kw_only=True)
class Job:
    """id: what the engine knows it by. thinking: whether the model is to think before it answers."""

    id: str
    is_chat: bool
    thinking: bool
    prompt_token_ids: TokenIds
    max_tokens: int | None  # None: what the prompt leaves
    sampling: SamplingParams
    stop_token_ids: tuple[int, ...]  # all that the engine ends the answer at
    stops: StopWords
    tokenizer: Tokenizer
    tags: Mapping[int, Tag]
    state: State
    tools: Tools
    goes_on: bool = False  # the prompt ends inside of the text that the answer begins with
    is_exact: bool = False  # content begins at once: a format says what it is from its first character on
    any_tool_name: bool = False  # whether a call of a tool that is not on offer is passed on
    client_stop_ids: tuple[int, ...] = ()  # those that only the client asked for
    hides_reasoning: bool = False  # then the engine does not know client_stop_ids: the reader looks for them
    most_tokens: int | None = None  # of the answer, whatever the request says; it is cut there, by `length`
    min_tokens: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    num_logprobs: int | None = None
    priority: int = 0
    deadline_ms: int | None = None
    thought: Thought | None = None
    grammar: AnswerGrammar | None = None
    begun: AnswerSoFar | None = None  # by another group
    cache_seed: bytes = b""  # whose KV blocks it may share (scheduler/prefix.py); empty: nobody's
    block_hashes: bytes = b""  # of the prompt, with that seed
    params: ParamNames = CHAT_NAMES

    def reader(self) -> OutputReader:
        """Return a reader for one run of the job."""

        def grammar() -> OutputGrammar:
            if not self.is_chat:
                return PlainText(self.state)
            return Grammar(
                self.state,
                self.tools,
                any_name=self.any_tool_name,
                goes_on=self.goes_on,
                is_exact=self.is_exact,
            )

        return OutputReader(
            self.tokenizer,
            self.tags,
            grammar,
            stops=self.stops,
            stop_token_ids=self.stop_token_ids,
            client_stop_ids=self.client_stop_ids,
            hides_reasoning=self.hides_reasoning,
            min_tokens=self.min_tokens,
        )

    def engine_request(self, room: Room) -> EngineRequest:
        """Return what the engine has to do. Raises RequestRefused when prompt and answer have no room."""
        prompt_len = len(self.prompt_token_ids)
        requested = 1 if self.max_tokens is None else self.max_tokens
        if prompt_len + requested > room.num_tokens:
            wanted = "at least 1 token" if self.max_tokens is None else f"{requested} tokens"
            is_answer_too_long = prompt_len < room.num_tokens and self.max_tokens is not None
            raise RequestRefused(
                f"{room}; the prompt has {prompt_len} and {wanted} of answer were requested: "
                f"{prompt_len + requested} together",
                param=self.params.max_tokens if is_answer_too_long else self.params.prompt,
                code="context_length_exceeded",
            )
        max_tokens = room.num_tokens - prompt_len if self.max_tokens is None else self.max_tokens
        if self.most_tokens is not None:
            max_tokens = min(max_tokens, self.most_tokens)
        return EngineRequest(
            request_id=self.id,
            prompt_token_ids=self.prompt_token_ids,
            max_tokens=max_tokens,
            stop_token_ids=list(self.stop_token_ids),
            sampling=self.sampling,
            min_tokens=min(self.min_tokens, max_tokens),
            bad_words=[list(ids) for ids in self.bad_words],
            num_logprobs=self.num_logprobs,
            priority=self.priority,
            deadline_ms=self.deadline_ms,
            thought=self.thought,
            grammar=self.grammar,
            cache_seed=self.cache_seed,
            block_hashes=self.block_hashes,
        )
