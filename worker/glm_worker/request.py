"""What the engine knows of a request: token ids and numbers, no text."""

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import msgspec


class TokenIds(msgspec.Struct, frozen=True, array_like=True, eq=False):
    """Many token ids as the bytes of int32, little-endian: a sequence of ints that costs 4 bytes for each of them.

    Equal to every sequence of the same ints. numpy and array read the bytes themselves.
    """

    data: bytes

    @classmethod
    def of(cls, token_ids: "Ids") -> "TokenIds":
        """Return these ids; a TokenIds is returned as it is. Raises OverflowError for one of more than 32 bits."""
        if isinstance(token_ids, TokenIds):
            return token_ids
        return cls((token_ids if isinstance(token_ids, array) else array("i", token_ids)).tobytes())

    @property
    def _view(self) -> "memoryview[int]":
        return memoryview(self.data).cast("i")

    def __len__(self) -> int:
        return len(self.data) // 4

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: int | slice) -> int | list[int]:
        return self._view[place].tolist() if isinstance(place, slice) else self._view[place]

    def __iter__(self) -> Iterator[int]:
        return iter(self._view)

    def __contains__(self, token_id: object) -> bool:
        return token_id in self._view

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TokenIds):
            return self.data == other.data
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(int.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"TokenIds({len(self)} ids)"  # it may land in a log, where prompts have no place

    def count(self, token_id: int) -> int:
        return self._view.tolist().count(token_id)

    def index(self, token_id: int) -> int:
        return self._view.tolist().index(token_id)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "shape": (len(self),), "typestr": "<i4", "data": self.data}


Sequence.register(TokenIds)

if TYPE_CHECKING:
    Ids = TokenIds | Sequence[int]
else:
    Ids = TokenIds  # what messages carry


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How to choose the next token. temperature 0, or next to it, is greedy: then top_p, top_k and min_p do nothing.

    seed: with the token's position it keys the random number, so a result does not depend on batch, order or ranks.
    """

    temperature: float = 1.0
    top_p: float = 1.0  # in (0, 1]; 1 = off
    top_k: int = 0  # 0 = off
    min_p: float = 0.0  # in [0, 1); 0 = off
    seed: int = 0  # unsigned, 63 bits
    frequency_penalty: float = 0.0  # taken off a logit for each time that its token was generated
    presence_penalty: float = 0.0  # taken off once if it was generated at all
    repetition_penalty: float = 1.0  # divides logits above 0, multiplies those below, of tokens of prompt and answer
    unpenalised_ids: list[int] = []  # that none of the three touches
    logit_bias: dict[int, float] = {}  # added to the logits of these ids


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """A bound on what is generated inside of a thought.

    A thought is open from the last of open_id to the next close_id, and from the beginning where begins_open. After
    max_tokens tokens in it the engine takes the tokens of forced_ids in place of sampled ones, one a step.
    """

    open_id: int
    close_id: int
    begins_open: bool
    max_tokens: int  # of all thoughts of the answer together, tags not counted
    forced_ids: list[int]  # ends with close_id


class AnswerGrammar(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer must look like, as xgrammar compiled it for the checkpoint's tokenizer.

    close_id: masks begin after this token was generated (a thought comes before the answer); None: at once.
    """

    key: str  # sha256 of what was compiled
    compiled: bytes  # as model/grammar_vocabulary.py packs it; empty at ranks that do not sample
    close_id: int | None = None


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to continue.

    The server has checked that len(prompt_token_ids) >= 1, max_tokens >= 1 and that both together fit the model.

    prompt_token_ids: any sequence of ints, kept as TokenIds. cache_seed, block_hashes: scheduler/prefix.py; a request
    without a seed neither finds KV blocks that others have left nor leaves its own.
    """

    request_id: str
    prompt_token_ids: Ids
    max_tokens: int  # answer tokens at most, thinking included
    stop_token_ids: list[int]  # the checkpoint's EOS list, unless the client asked to ignore it, and the client's own
    sampling: SamplingParams = SamplingParams()
    min_tokens: int = 0  # no stop token is chosen before as many tokens were generated
    bad_words: list[list[int]] = []  # sequences of ids whose last one is never chosen after the others
    num_logprobs: int | None = None  # None: none; 0: of the chosen token; k: of the k best as well
    priority: int = 0  # lower goes first
    deadline_ms: int | None = None  # on the machine's monotonic clock; the earlier first among equals in priority
    thought: Thought | None = None
    grammar: AnswerGrammar | None = None
    # Generated for this request before, in another group or generation. They count in everything as if they had been
    # generated here, and are not put out again: the sequence begins like one that was preempted after them.
    answer_token_ids: list[int] = []
    cache_seed: bytes = b""  # 32 bytes: whose blocks it may share
    block_hashes: bytes = b""  # 32 bytes for each full block of the prompt; empty: the engine makes them

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "prompt_token_ids", TokenIds.of(self.prompt_token_ids))
