"""Laws of the scheduler over random schedules: arrivals, cancels at any point, tiny block pools, chunked prefill, and
answers that go on elsewhere: after a cancel, or when the whole scheduler is lost with its blocks.

The model is a function from (request, position) to a token, and the KV cache an array that remembers for each slot
whose it is and all tokens up to it. So a block that is lost, shared wrongly or not computed again after a preemption
shows up as a context that does not read back, and a token delivered twice or never as an answer that differs.

Prompts are of few kinds, so that many begin alike, and some go on with what another request was asked and answered, as
the next turn of a chat does. Requests are of two tenants or of nobody: blocks of one are not for the other.

The device computes a step when it is planned. In half of the worlds the next step is planned before the tokens of the
last one are known to the schedulers.

There are two worlds: one in which all requests are equal, and come first who came first; and one with priorities and
deadlines.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest, SamplingParams, TokenIds
from glm_worker.scheduler.limits import SchedulerLimits, why_it_never_fits
from glm_worker.scheduler.plan import UNKNOWN_TOKEN, ScheduledBatch
from glm_worker.scheduler.prefix import hashes_of, seed_of
from glm_worker.scheduler.scheduler import Scheduler

STOP = 0
BROKEN = "NaN"
TENANTS = st.sampled_from(["a", "b", None])


def next_token(request: EngineRequest, position: int) -> int:
    """The model: every eleventh token or so is a stop token."""
    return (request.sampling.seed * 7 + position * 5) % 11


def whole_answer(request: EngineRequest) -> tuple[list[int], str]:
    """What the request must receive if nobody cancels it."""
    tokens: list[int] = []
    while len(tokens) < request.max_tokens:
        tokens.append(next_token(request, len(request.prompt_token_ids) + len(tokens)))
        if tokens[-1] in request.stop_token_ids:
            return tokens, "stop"
    return tokens, "length"


def ending_of(request: EngineRequest, answer: Sequence[int]) -> str | None:
    """Why nothing comes after this answer, if so."""
    if answer and answer[-1] in request.stop_token_ids:
        return "stop"
    return "length" if len(answer) == request.max_tokens else None


@dataclass
class Received:
    """What came out for one request."""

    request: EngineRequest
    token_ids: list[int] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    is_cancelled: bool = False
    num_given: int = 0  # tokens of token_ids with which the request came
    num_first_scheduled: int = 0
    num_computed: int = 0
    on_device: list[int] = field(default_factory=list)  # the answer as the device has it, ahead of what came out
    num_found: int | None = None  # tokens that were there when it was computed for the first time
    cached_tokens: list[int] = field(default_factory=list)  # as said, in each output with tokens

    @property
    def owner(self) -> object:
        return self.request.cache_seed or self.request.request_id


class RandomSchedules(RuleBasedStateMachine):
    """Two schedulers get the same calls; the world is simulated around the first."""

    def __init__(self) -> None:
        super().__init__()
        self.received: dict[str, Received] = {}
        self.sampled: list[dict[str, list[int]]] = []  # in each step that is not committed
        self.num_steps = 0

    @initialize(
        max_uncommitted=st.integers(1, 2),
        max_batch_tokens=st.integers(1, 12),
        max_num_seqs=st.integers(1, 5),
        num_blocks=st.integers(1, 8),
        block_size=st.integers(1, 4),
        patience_steps=st.integers(1, 30),
    )
    def start(
        self,
        max_batch_tokens: int,
        max_num_seqs: int,
        num_blocks: int,
        block_size: int,
        patience_steps: int,
        max_uncommitted: int,
    ) -> None:
        self.max_uncommitted = max_uncommitted
        self.limits = SchedulerLimits(30, max_batch_tokens, max_num_seqs, num_blocks, block_size)
        self.patience_steps = patience_steps
        self.begin_anew()

    def begin_anew(self) -> None:
        """Let there be schedulers that know of nothing, and empty blocks."""
        self.scheduler, self.twin = (
            Scheduler(self.limits, self.patience_steps, max_uncommitted=self.max_uncommitted) for _ in range(2)
        )
        self.sampled = []
        self.arrived_steps: dict[str, int] = {}
        self.digests = (0, 0)
        self.kv: list[tuple[object, ...] | str | None] = [None] * (self.limits.num_blocks * self.limits.block_size)

    @rule(
        num_prompt=st.integers(1, 10),
        max_tokens=st.integers(1, 10),
        can_stop=st.booleans(),
        kind=st.integers(0, 2),
        tenant=TENANTS,
    )
    def arrive(self, num_prompt: int, max_tokens: int, can_stop: bool, kind: int, tenant: str | None) -> None:
        self.add(self.request([1000 * kind + i for i in range(num_prompt)], max_tokens, can_stop, tenant))

    @rule(pick=st.integers(0, 10**6), max_tokens=st.integers(1, 5), num_more=st.integers(1, 3), tenant=TENANTS)
    @precondition(lambda self: self.received)
    def go_on_chatting(self, pick: int, max_tokens: int, num_more: int, tenant: str | None) -> None:
        """The next turn: all that was asked and answered so far, and something new."""
        past = self.received[f"r{pick % len(self.received)}"]
        prompt = [*past.request.prompt_token_ids, *past.token_ids, *range(-num_more, 0)]
        self.add(self.request(prompt, max_tokens, True, tenant))

    def request(
        self,
        prompt: list[int],
        max_tokens: int,
        can_stop: bool,
        tenant: str | None = None,
        priority: int = 0,
        deadline_ms: int | None = None,
    ) -> EngineRequest:
        """tenant: None: it shares nothing."""
        number = len(self.received)
        seed = b"" if tenant is None else seed_of(tenant)
        hashes = hashes_of(TokenIds.of(prompt), seed, self.limits.block_size) if seed and number % 2 else b""
        return EngineRequest(
            request_id=f"r{number}",
            prompt_token_ids=prompt,
            max_tokens=max_tokens,
            stop_token_ids=[STOP] if can_stop else [],
            sampling=SamplingParams(seed=number % 3),
            priority=priority,
            deadline_ms=deadline_ms,
            cache_seed=seed,
            block_hashes=hashes,
        )

    def add(self, request: EngineRequest) -> None:
        self.arrived_steps[request.request_id] = self.scheduler.step
        given = request.answer_token_ids
        self.received[request.request_id] = Received(request, list(given), num_given=len(given), on_device=list(given))
        output = self.scheduler.add(request)
        assert output == self.twin.add(request)
        is_over = ending_of(request, given) is not None
        assert (output is None) == (why_it_never_fits(request, self.limits) is None and not is_over)
        self.take([output] if output else [])

    @rule(num_prompt=st.integers(1, 10), max_tokens=st.integers(1, 10), can_stop=st.booleans(), share=st.floats(0, 1))
    def arrive_resumed(self, num_prompt: int, max_tokens: int, can_stop: bool, share: float) -> None:
        """One that has a part of its answer from elsewhere, or all of it."""
        request = self.request(list(range(num_prompt)), max_tokens, can_stop, "a")
        tokens, _ = whole_answer(request)
        self.add(msgspec.structs.replace(request, answer_token_ids=tokens[: round(share * len(tokens))]))

    @rule(pick=st.integers(0, 10**6))
    @precondition(lambda self: any(not r.endings for r in self.received.values()))
    def move(self, pick: int) -> None:
        """Cancel a request and let another go on with what it has, as somebody does who sends it elsewhere."""
        unfinished = [r for r in self.received.values() if not r.endings]
        moved = unfinished[pick % len(unfinished)]
        self.cancel(int(moved.request.request_id[1:]))
        request_id = f"r{len(self.received)}"
        self.add(msgspec.structs.replace(moved.request, request_id=request_id, answer_token_ids=list(moved.token_ids)))
        event("moved")

    @rule()
    @precondition(lambda self: any(not r.endings for r in self.received.values()))
    def lose(self) -> None:
        """The schedulers die, perhaps in the middle of a step; new ones get what was unfinished, in its order."""
        unfinished = [r for r in self.received.values() if not r.endings]
        self.begin_anew()
        for received in unfinished:
            self.add(msgspec.structs.replace(received.request, answer_token_ids=list(received.token_ids)))
        event("lost")

    @rule(pick=st.integers(0, 10**6))
    @precondition(lambda self: self.received)
    def cancel(self, pick: int) -> None:
        request_id = f"r{pick % len(self.received)}"
        had_ended = bool(self.received[request_id].endings)
        self.received[request_id].is_cancelled |= not had_ended
        output = self.scheduler.cancel(request_id)
        assert output == self.twin.cancel(request_id)
        assert (output is None) == had_ended
        assert request_id not in self.scheduler.blocks.holders()
        self.take([output] if output else [])

    @rule(pick=st.integers(0, 10**6))
    @precondition(lambda self: self.received)
    def fail(self, pick: int) -> None:
        """A request breaks: what only it holds is no number any more."""
        request_id = f"r{pick % len(self.received)}"
        received = self.received[request_id]
        if received.endings:
            return
        received.is_cancelled = True
        held = self.scheduler.blocks._tables
        others = {block for other, table in held.items() if other != request_id for block in table}
        size = self.limits.block_size
        for block in set(held.get(request_id, [])) - others:
            self.kv[block * size : (block + 1) * size] = [BROKEN] * size
        output = self.scheduler.cancel(request_id, "failed")
        assert output == self.twin.cancel(request_id, "failed")
        assert output is not None
        self.take([output])
        event("failed")

    @rule(max_prefill_tokens=st.none() | st.integers(1, 5), looks_ahead=st.booleans())
    def go_on(self, max_prefill_tokens: int | None = None, looks_ahead: bool = False) -> None:
        """Half a step: arrivals and cancels also fall between the plan and its commit."""
        may_plan = not self.sampled or (looks_ahead and len(self.sampled) < self.max_uncommitted)
        if not (may_plan and self.schedule(max_prefill_tokens)) and self.sampled:
            self.commit()

    def schedule(self, max_prefill_tokens: int | None) -> bool:
        """Plan and compute a step; False: there is none."""
        had_work, before = self.scheduler.has_work, self.scheduler.blocks.holders()
        plan, twin_plan = self.scheduler.schedule(max_prefill_tokens), self.twin.schedule(max_prefill_tokens)
        self.scheduler.check()
        self.zero(plan)
        self.prompts_take_no_more_than_they_may(plan, max_prefill_tokens)
        self.digests = (plan.digest(self.digests[0]), twin_plan.digest(self.digests[1]))
        assert plan == twin_plan
        assert self.digests[0] == self.digests[1]
        is_ahead = bool(self.sampled)
        assert bool(plan.sequences) == had_work or is_ahead
        assert plan.num_tokens <= self.limits.max_batch_tokens
        assert len(plan.sequences) <= self.scheduler.num_running <= self.limits.max_num_seqs
        assert all(len(s.token_ids) >= 1 for s in plan.sequences)
        if is_ahead:
            assert not plan.preempted
            self.nobody_is_left_behind(plan, before)
            event("ahead" if plan.sequences else "nothing ahead")
        else:
            self.important_go_first(plan, before)
        for request_id in plan.first_scheduled:
            self.received[request_id].num_first_scheduled += 1
        if plan.preempted:
            event("preempted")
        if plan.sequences:
            self.sampled.append(self.run_plan(plan))
        return bool(plan.sequences)

    def zero(self, plan: ScheduledBatch) -> None:
        """Zero what is to be zeroed; then nobody who runs holds anything that is broken."""
        size = self.limits.block_size
        for block in plan.zeroed:
            self.kv[block * size : (block + 1) * size] = [None] * size
        for table in self.scheduler.blocks._tables.values():
            assert all(BROKEN not in self.kv[block * size : (block + 1) * size] for block in table)

    def prompts_take_no_more_than_they_may(self, plan: ScheduledBatch, max_prefill_tokens: int | None) -> None:
        """One token before the end of a prompt counts as one of an answer."""
        prefills = [len(s.token_ids) for s in plan.sequences if not s.is_decode and len(s.token_ids) > 1]
        if max_prefill_tokens is not None:
            assert sum(prefills) <= max_prefill_tokens

    def rank(self, request_id: str) -> tuple[int, float, int]:
        request = self.received[request_id].request
        deadline = math.inf if request.deadline_ms is None else request.deadline_ms
        if self.scheduler.step - self.arrived_steps[request_id] > self.patience_steps:
            deadline = -math.inf
        return request.priority, deadline, int(request_id[1:])

    def important_go_first(self, plan: ScheduledBatch, before: set[str]) -> None:
        """before: who held blocks, which is who ran, before this step."""
        planned = {s.request_id for s in plan.sequences}
        running = self.scheduler.blocks.holders()
        waiting = {request_id for request_id, r in self.received.items() if not r.endings} - running
        lost = set(plan.preempted)
        if before:
            assert min(before, key=self.rank) not in lost
        if running:  # a newcomer of a higher priority may have taken all that a step holds
            assert min(running, key=self.rank) in planned
        assert all(self.rank(loser) > self.rank(other) for loser in lost for other in running)
        admitted = running - before
        assert not (admitted and lost)
        for newcomer in admitted:
            for other in waiting:
                if self.rank(newcomer) > self.rank(other):
                    self.may_overtake(newcomer, other, plan)
        for request_id in lost:
            self.received[request_id].num_computed = 0
        self.prompts_halt_no_answer(before - lost, planned)

    def may_overtake(self, newcomer: str, other: str, plan: ScheduledBatch) -> None:
        """Only within a priority, and only one of another size while a prefill of its own size takes tokens, or one
        whose next block is being computed for another.
        """
        overtaken = next(s for s in self.scheduler._waiting if s.request_id == other)
        size = self.limits.block_size
        missing = next(overtaken.keys(size, len(self.scheduler.blocks.found(overtaken.keys(size)))), None)
        coming = [s for s in self.scheduler._running if s.shares and (s.num_published + 1) * size <= s.num_tokens]
        if missing in [s.key(s.num_published, size) for s in coming]:
            event("waits for a block")
            return
        assert self.rank(newcomer)[0] == self.rank(other)[0]
        prefills = {s.request_id for s in plan.sequences if not s.is_decode}
        assert any(s.lane == overtaken.lane and s.request_id in prefills for s in self.scheduler._running)
        event("overtaken")

    def nobody_is_left_behind(self, plan: ScheduledBatch, before: set[str]) -> None:
        """A step that is planned ahead computes all who decode and do not end with the step before, or is none."""
        going_on = {
            request_id
            for request_id in before
            if len(self.received[request_id].on_device) < self.received[request_id].request.max_tokens
        }
        if plan.sequences:
            self.prompts_halt_no_answer(going_on, {s.request_id for s in plan.sequences})

    def prompts_halt_no_answer(self, running: set[str], planned: set[str]) -> None:
        decoding = {request_id for request_id in running if self.num_uncomputed(request_id) == 1}
        if len(decoding) < self.limits.max_batch_tokens:
            assert decoding <= planned

    def num_uncomputed(self, request_id: str) -> int:
        received = self.received[request_id]
        return len(received.request.prompt_token_ids) + len(received.on_device) - received.num_computed

    def commit(self) -> None:
        sampled = self.sampled.pop(0)
        outputs = self.scheduler.commit(sampled)
        assert outputs == self.twin.commit(sampled)
        self.num_steps += 1
        self.take(outputs)

    def run_plan(self, plan: ScheduledBatch) -> dict[str, list[int]]:
        """Write the KV of the step, then read back the whole context of every sequence; return what is sampled."""
        size, sampled = self.limits.block_size, {}
        tables = self.scheduler.blocks._tables
        for s in plan.sequences:
            received = self.received[s.request_id]
            known = self.on_device(received)
            num_told = len(received.request.prompt_token_ids) + len(received.token_ids)
            told = [token if i < num_told else UNKNOWN_TOKEN for i, token in enumerate(known)]
            assert list(s.token_ids) == told[s.start : s.end]
            for position in range(s.start, s.end):
                block = s.block_table[position // size]
                assert not any(block in table for other, table in tables.items() if other != s.request_id), "shared"
                self.kv[block * size + position % size] = (received.owner, *known[: position + 1])
            if received.num_found is None:
                received.num_found = s.start
                event("found" if s.start else "nothing found")
        for s in plan.sequences:
            received = self.received[s.request_id]
            known = self.on_device(received)
            context = [self.kv[s.block_table[i // size] * size + i % size] for i in range(s.end)]
            assert context == [(received.owner, *known[: i + 1]) for i in range(s.end)]
            assert s.is_sampled == (s.end == len(known))
            received.num_computed = s.end
            if s.is_sampled:
                sampled[s.request_id] = [next_token(received.request, s.end)]
                received.on_device += sampled[s.request_id]
        return sampled

    def on_device(self, received: Received) -> list[int]:
        return [*received.request.prompt_token_ids, *received.on_device]

    def take(self, outputs: list[RequestOutput]) -> None:
        self.scheduler.check()
        for output in outputs:
            received = self.received[output.request_id]
            assert not received.endings, "a finished request is never named again"
            received.token_ids += output.token_ids
            if output.token_ids:
                received.cached_tokens.append(output.cached_tokens)
            if output.finish_reason is not None:
                received.endings.append(output.finish_reason)

    def teardown(self) -> None:
        """Let everything finish, within the bound, and look at what each request got."""
        if not hasattr(self, "scheduler"):
            return
        last_step = self.num_steps + self.steps_left([r.request for r in self.received.values() if not r.endings])
        while self.scheduler.has_work or self.sampled:
            self.go_on(looks_ahead=True)
            assert self.num_steps <= last_step + 1, "starvation"
        assert self.scheduler.blocks.num_used == 0
        for received in self.received.values():
            self.ended_once_and_right(received)

    def steps_left(self, unfinished: list[EngineRequest]) -> int:
        """Before the most important one begins, those that run may have to end: each gets on by a token a step."""
        return (len(unfinished) + 1) * sum(len(r.prompt_token_ids) + r.max_tokens for r in unfinished)

    def ended_once_and_right(self, received: Received) -> None:
        assert len(received.endings) == 1
        if received.cached_tokens:
            assert received.num_found is not None
            said = min(received.num_found, len(received.request.prompt_token_ids))
            assert received.cached_tokens == [said, *[0] * (len(received.cached_tokens) - 1)]
        tokens, reason = whole_answer(received.request)
        if received.is_cancelled:
            assert received.endings in (["cancelled"], ["failed"])
            assert received.token_ids == tokens[: len(received.token_ids)]
            assert received.num_first_scheduled <= 1
        elif why_it_never_fits(received.request, self.limits) is not None:
            assert (len(received.token_ids), received.endings) == (received.num_given, ["length"])
            assert received.num_first_scheduled == 0
        else:
            assert (received.token_ids, received.endings) == (tokens, [reason])
            assert received.num_first_scheduled == (received.num_given < len(tokens))


class EqualRequests(RandomSchedules):
    """Nobody is more important than another."""

    def important_go_first(self, plan: ScheduledBatch, before: set[str]) -> None:
        super().important_go_first(plan, before)
        unfinished = [request_id for request_id, r in self.received.items() if not r.endings]
        assert not unfinished or unfinished[0] not in plan.preempted


class ImportantRequests(RandomSchedules):
    @rule(
        num_prompt=st.integers(1, 10),
        max_tokens=st.integers(1, 10),
        can_stop=st.booleans(),
        priority=st.integers(-1, 2),
        deadline_ms=st.none() | st.integers(0, 5),
    )
    def arrive_important(
        self, num_prompt: int, max_tokens: int, can_stop: bool, priority: int, deadline_ms: int | None
    ) -> None:
        prompt = list(range(num_prompt))
        self.add(self.request(prompt, max_tokens, can_stop, "a", priority, deadline_ms))


LAWS = settings(max_examples=100, stateful_step_count=60, deadline=None, derandomize=True)
TestEqualRequests = EqualRequests.TestCase
TestEqualRequests.settings = LAWS
TestImportantRequests = ImportantRequests.TestCase
TestImportantRequests.settings = LAWS
