"""Messages between the processes of a worker pod. msgpack by msgspec, never pickle.

Two links:
- server <-> engine (rank 0): a ZMQ PAIR socket at an ipc:// endpoint made anew for every generation. The server
  binds, rank 0 connects. Every message carries its generation; the receiver drops those of another one.
- supervisor <-> server: a socket pair inherited by the server, frames of a 4-byte big-endian length and msgpack.
"""

from typing import Literal

import msgspec

from glm_worker.request import EngineRequest

FinishReason = Literal["stop", "length", "cancelled", "failed"]
"""stop: a stop token was sampled, or the grammar is complete; length: max_tokens reached; cancelled: the server asked
for it; failed: this request cannot go on, and the others do."""


class EngineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one generation can hold, as agreed by the minimum over its ranks."""

    max_model_len: int  # tokens of prompt and answer together
    num_blocks: int
    block_size: int
    max_num_seqs: int = 0  # requests that run at once; 0: what the settings say


# server -> engine


class Submit(msgspec.Struct, frozen=True, tag=True):
    generation: str
    request: EngineRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """reason: what it ends with. failed: what was computed for it may not be finite."""

    generation: str
    request_id: str
    reason: FinishReason = "cancelled"


ToEngine = Submit | Cancel


# engine -> server


class EngineReady(msgspec.Struct, frozen=True, tag=True):
    """Rank 0 has loaded, all ranks have met, and Submit is welcome."""

    generation: str
    limits: EngineLimits
    load_seconds: float
    deterministic: bool = False  # what a request computes depends on nothing but itself: seen here, not only intended
    kernels: str = ""  # what computes the layers: torch, cpu-<instruction set>, ...; empty: unknown


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Natural logarithms of probabilities in the model's own distribution, before temperature, penalties and masks."""

    logprob: float  # of the chosen token
    rank: int  # of the chosen token among all, 1 is the most likely
    top: list[tuple[int, float]] = []  # id and logprob of the likeliest tokens, best first


class RequestOutput(msgspec.Struct, frozen=True):
    """New tokens of one request. A finished request is never named again.

    A stop token that ended the request is the last of token_ids: the server needs to know which one it was.
    logprobs: one for each token where the request asks for them, else none.
    error: the cause where finish_reason is failed, a sentence without anything of prompt or answer. is_fault: it is
    ours, and not of what the request asks for.
    cached_tokens: in the first output of a request that has tokens: of its prompt, found computed.
    """

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprobs] = []
    error: str | None = None
    cached_tokens: int = 0
    is_fault: bool = False


class StepBegins(msgspec.Struct, frozen=True, tag=True):
    """Before a step that computes requests which the step before did not: if the generation dies, one of those that
    are computed may be why.
    """

    generation: str
    scheduled: list[str]  # for the first time, or again after they were preempted
    preempted: list[str]


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """What one engine step brought, with the gauges as they stand after it.

    scheduled: ids of the requests whose first token was computed for the first time in this step. Their queue time has
    ended at began_s, when the step began, on the monotonic clock that all processes of the machine share.
    """

    generation: str
    outputs: list[RequestOutput]
    step: int
    began_s: float
    num_running: int
    num_waiting: int
    num_tokens_waiting: int
    kv_blocks_used: int
    num_preemptions: int  # since the generation began
    scheduled: list[str] = []
    num_prompt_tokens_left: int = 0  # not yet computed, of the requests that run
    prefill_tokens: int = 0  # prompt tokens that this step computed
    prefill_s: float = 0.0  # the time of this step that is theirs
    decode_tokens: int = 0  # tokens that this step generated for requests past their prompt
    decode_s: float = 0.0  # the time of this step that is theirs; both together are the time of the step
    num_cached_waiting: int = 0  # of num_tokens_waiting, those that were cached when their requests came
    expert_tokens_by_rank: list[int] = []  # routed tokens by expert rank since the last report; empty: none this time


FromEngine = EngineReady | StepBegins | StepDone


# operator -> supervisor, as JSON over HTTP, and on to the server

Signal = Literal["ttft", "ttfa", "itl", "e2e"]
"""Times of a request that may be promised: to its first token, to the first of its answer, between two tokens, all."""


class HeaderMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A header that a request must carry; upper or lower case of the name is the same."""

    name: str
    value: str


class SloClass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One promise, and the requests that it is for."""

    name: str
    thinking: Literal["enabled", "disabled", "any"] = "any"
    header: HeaderMatch | None = None
    thresholds_s: dict[Signal, float]
    objective: float  # share of requests that meet every threshold


class Slo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Latency promises. A request belongs to the first class that matches it."""

    classes: list[SloClass]


Effort = Literal["minimal", "low", "medium", "high", "xhigh"]
"""Levels of effort that clients name, least first; `none` is no thinking at all."""


class ReasoningPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the deployment says about thinking where a request does not, and what no request can exceed."""

    default: Literal["template", "enabled", "disabled", "auto"] = "template"
    auto_threshold: float = 0.5  # in [0, 1]; `auto` thinks from this score on
    max_thinking_tokens: int | None = None  # of one answer; None: no bound but the answer's own
    effort_tokens: dict[Effort, int] = {}  # budget of an effort that a request names; missing: ours
    visibility: Literal["visible", "hidden", "by_role"] = "visible"
    visible_to: list[str] = []  # roles, with by_role
    fields: Literal["reasoning_content", "both"] = "reasoning_content"  # both: `reasoning` with the same text as well


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the deployment wants of requests, and may change while groups serve."""

    reasoning: ReasoningPolicy = ReasoningPolicy()
    trust_proxy_headers: bool = False  # whether x-glm-role and x-glm-tenant count


# supervisor -> server


class GenerationStarting(msgspec.Struct, frozen=True, tag=True):
    """Bind a PAIR socket at endpoint and wait there for EngineReady."""

    generation: str
    endpoint: str


class GenerationEnded(msgspec.Struct, frozen=True, tag=True):
    """The ranks of this generation are dead. cause is a sentence for logs."""

    generation: str
    cause: str


class Unavailable(msgspec.Struct, frozen=True, tag=True):
    """No generation will serve soon: nothing is to wait for one. Repeated while it is so; GenerationStarting ends it.

    reason is a sentence for clients; after retry_after_s they may try again.
    """

    reason: str
    retry_after_s: int


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Finish what runs; answer Drained when nothing is left. What runs past both times is ended with an error event."""

    accept_s: float  # keep accepting that long: endpoints need time to follow readiness
    deadline_s: float  # then finish within this


class SetSlo(msgspec.Struct, frozen=True, tag=True):
    """Measure by these promises from now on, in place of those before."""

    slo: Slo


class SetPolicy(msgspec.Struct, frozen=True, tag=True):
    """Treat requests by this policy from now on, in place of the one before."""

    policy: Policy


class CompileAt(msgspec.Struct, frozen=True, tag=True):
    """Who connects to the Unix socket at path gets a process that compiles grammars (supervisor/children/)."""

    path: str


class WatchLoad(msgspec.Struct, frozen=True, tag=True):
    """Say LoadChanged at once, when something has changed and now and then, until it is off again."""

    is_on: bool


class MetricsRequest(msgspec.Struct, frozen=True, tag=True):
    id: int


class InFlightTokensRequest(msgspec.Struct, frozen=True, tag=True):
    id: int


ToServer = (
    GenerationStarting
    | GenerationEnded
    | Unavailable
    | Drain
    | SetSlo
    | SetPolicy
    | CompileAt
    | WatchLoad
    | MetricsRequest
    | InFlightTokensRequest
)


# server -> supervisor


class ServerReady(msgspec.Struct, frozen=True, tag=True):
    """The HTTP port is open."""

    port: int


class EngineServing(msgspec.Struct, frozen=True, tag=True):
    """The server has seen EngineReady of this generation: requests are answered from now on."""

    generation: str


class FirstAnswer(msgspec.Struct, frozen=True, tag=True):
    """This generation has finished a request: it can do what it is for."""

    generation: str


class Full(msgspec.Struct, frozen=True, tag=True):
    """The server has no room for another connection, for this reason, a sentence; None: it has room again."""

    reason: str | None


class MetricsReply(msgspec.Struct, frozen=True, tag=True):
    id: int
    text: str  # Prometheus exposition format


class InFlightTokensReply(msgspec.Struct, frozen=True, tag=True):
    id: int
    in_flight_tokens: int  # as Flights counts them


class LoadChanged(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the server and the generation that serves have to do now. None: not known, as while no generation serves."""

    in_flight_tokens: int  # as Flights counts them
    tokens_to_prefill: int  # prompt tokens that no step has computed
    oldest_waiting_s: float  # of the requests of which no step has computed anything; 0: none waits
    max_running: int  # requests that may run at once
    max_model_len: int  # tokens of prompt and answer that one request may have together
    num_waiting: int
    num_running: int | None
    kv_usage: float | None  # 1 is full
    kv_tokens: int | None  # that the cache holds when full
    prefill_tokens_per_s: float | None  # while prompts are computed; None before
    fingerprint: str  # of what makes text of ids, and ids of text
    model: str  # as clients call it


class Drained(msgspec.Struct, frozen=True, tag=True):
    num_ended_early: int


class ServerFailed(msgspec.Struct, frozen=True, tag=True):
    """The last word of a server that cannot go on; its process ends right after."""

    message: str


FromServer = (
    ServerReady
    | EngineServing
    | FirstAnswer
    | Full
    | MetricsReply
    | InFlightTokensReply
    | LoadChanged
    | Drained
    | ServerFailed
)
