"""Owns the requests between arrival and end: continuous batching over paged KV blocks.

A step is schedule(), run on the device (not here), commit(). Between any two calls requests may be added and cancelled.
The same calls in the same order give the same plans, so every rank runs its own copy and no plan crosses the wire.

Policy: the most important first: by priority, then deadline, then arrival. So equals are served as they came. A step
first gives one token to each running sequence that decodes, then as much as the token budget allows to prefills, each
in that order. When blocks run out the least important running sequence is preempted: it loses its blocks, waits in its
place in the order and is computed again later, its sampled tokens kept. Sequences are admitted in order, and only with
room for all their known tokens, so a prefill that has begun is never cut short by its own size. A waiting sequence
preempts nobody, however important: it goes first when there is room.

Within a priority nothing starves: after patience_steps a request goes before all deadlines of its priority, oldest
first. A lower priority waits for ever while a higher one fills the group: that is what a priority is.

Invariant: of those that run, the most important one is never preempted and gets tokens in every step.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from operator import attrgetter

from glm_worker.errors import EngineFailed
from glm_worker.messages import FinishReason, RequestOutput
from glm_worker.request import EngineRequest
from glm_worker.scheduler.block_manager import BlockManager, blocks_for
from glm_worker.scheduler.limits import SchedulerLimits, why_it_never_fits
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence
from glm_worker.scheduler.sequence import SequenceState

PATIENCE_STEPS = 1000  # some 20 s of a busy group
_rank = attrgetter("rank")


class Scheduler:
    """Every public method leaves the books balanced; check() raises if one did not."""

    def __init__(self, limits: SchedulerLimits, patience_steps: int = PATIENCE_STEPS) -> None:
        self.limits = limits
        self._patience_steps = patience_steps
        self.blocks = BlockManager(limits.num_blocks, limits.block_size)
        self.step = 0
        self.num_preemptions = 0
        self._num_arrived = 0
        self._sequences: dict[str, SequenceState] = {}  # every unfinished request
        self._waiting: list[SequenceState] = []  # by rank
        self._running: list[SequenceState] = []  # by rank
        self._patient: deque[SequenceState] = deque()  # by arrival; those that have ended are dropped late
        self._planned: list[tuple[SequenceState, ScheduledSequence]] = []  # scheduled, not yet committed

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_tokens_waiting(self) -> int:
        """Tokens to compute before the waiting sequences can go on."""
        return sum(sequence.num_uncomputed for sequence in self._waiting)

    @property
    def num_prompt_tokens_left(self) -> int:
        """Tokens that the running sequences must compute before each of them generates; recomputed ones count."""
        return sum(sequence.num_prefill_left for sequence in self._running)

    def add(self, request: EngineRequest) -> RequestOutput | None:
        """Queue a request. One that can never fit, or has its whole answer, ends here: its output is returned."""
        if request.request_id in self._sequences:
            raise EngineFailed(f"request {request.request_id} was submitted while it is still in the engine")
        if why_it_never_fits(request, self.limits) is not None:
            return RequestOutput(request.request_id, [], "length")
        sequence = SequenceState(request, self._num_arrived, self.step)
        if sequence.finish_reason is not None:
            return RequestOutput(request.request_id, [], sequence.finish_reason)
        self._num_arrived += 1
        self._sequences[request.request_id] = sequence
        insort(self._waiting, sequence, key=_rank)
        self._patient.append(sequence)
        return None

    def cancel(self, request_id: str, reason: FinishReason = "cancelled") -> RequestOutput | None:
        """End a request and free its blocks at once. None if it has ended already, or never was."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return None
        sequence.finish_reason = reason
        self._remove(sequence)
        return RequestOutput(request_id, [], reason)

    def schedule(self) -> ScheduledBatch:
        """Plan the next step. The plan is empty exactly when no request is left; else commit() must follow it."""
        if self._planned:
            raise EngineFailed(f"step {self.step} was not committed before the next was planned")
        if not self.has_work:
            return ScheduledBatch(self.step, (), (), ())
        self.step += 1
        self._end_patience()
        preempted = self._plan_running()
        first_scheduled = () if preempted else self._admit()
        return ScheduledBatch(self.step, tuple(s for _, s in self._planned), first_scheduled, preempted)

    @property
    def sampled(self) -> list[SequenceState]:
        """The sequences of the plan whose next token is to be sampled, in the order of their logits."""
        return [sequence for sequence, scheduled in self._planned if scheduled.is_sampled]

    def commit(self, sampled: Mapping[str, int]) -> list[RequestOutput]:
        """Take the sampled tokens of the plan and return what is new, in the order of the plan.

        sampled: one token for each sequence of the plan that is_sampled; those of requests cancelled meanwhile are
        dropped. Finished sequences free their blocks.
        """
        planned, self._planned = self._planned, []
        wanted = {scheduled.request_id for _, scheduled in planned if scheduled.is_sampled}
        if wanted != sampled.keys():
            raise EngineFailed(f"step {self.step} wanted tokens for {sorted(wanted)} and got {sorted(sampled)}")
        outputs = []
        for sequence, scheduled in planned:
            if sequence.finish_reason is not None:
                continue  # cancelled while it ran
            sequence.num_computed = scheduled.end
            if scheduled.is_sampled:
                token_id = sampled[scheduled.request_id]
                finish_reason = sequence.append(token_id)
                outputs.append(RequestOutput(scheduled.request_id, [token_id], finish_reason))
                if finish_reason is not None:
                    self._remove(sequence)
        return outputs

    def check(self) -> None:
        """Raise EngineFailed unless the books balance. For tests: it costs more than a step."""
        self.blocks.check()
        block_size = self.limits.block_size
        order = [*self._running, *self._waiting]
        held = {s.request_id: len(self.blocks.table(s.request_id)) for s in self._running}
        claims = {
            "every unfinished request either runs or waits": len(order) == len(self._sequences)
            and {s.request_id: s for s in order} == self._sequences,
            "both run and wait by rank": all(
                a.rank < b.rank for places in (self._running, self._waiting) for a, b in pairwise(places)
            ),
            "sequences in the books are unfinished": all(s.finish_reason is None for s in order),
            "max_num_seqs is kept": len(self._running) <= self.limits.max_num_seqs,
            "blocks belong to running sequences": self.blocks.holders() == held.keys(),
            "blocks hold what is computed": all(
                held[s.request_id] * block_size >= s.num_computed for s in self._running
            ),
            "no block is held in vain": all(
                held[s.request_id] <= blocks_for(s.num_tokens, block_size) for s in self._running
            ),
            "waiting sequences have nothing computed": all(s.num_computed == 0 for s in self._waiting),
            "something is left to compute": all(s.num_uncomputed >= 1 for s in order),
        }
        if broken := [claim for claim, holds in claims.items() if not holds]:
            raise EngineFailed(f"the scheduler's books after step {self.step} break: {'; '.join(broken)}")

    def _end_patience(self) -> None:
        """Let those go before all deadlines of their priority that came patience_steps ago."""
        while self._patient and (
            self._patient[0].finish_reason is not None
            or self.step - self._patient[0].arrived_step > self._patience_steps
        ):
            sequence = self._patient.popleft()
            if sequence.finish_reason is None:
                places = self._place_of(sequence)
                places.remove(sequence)
                sequence.lose_patience()
                insort(places, sequence, key=_rank)

    def _plan_running(self) -> tuple[str, ...]:
        """Plan the running sequences and return the ids of those preempted for it.

        Decodes go first, or the prompt of an important newcomer would halt every answer. Tokens are left for that
        prompt: it was admitted with what decodes left, and while it is not whole nobody else is.
        """
        preempted: list[str] = []
        decodes = [sequence for sequence in self._running if sequence.num_uncomputed == 1]
        prefills = [sequence for sequence in self._running if sequence.num_uncomputed > 1]
        budget = self.limits.max_batch_tokens
        for sequence in decodes:
            if not budget or sequence.request_id in preempted:
                break
            while not self.blocks.grow(sequence.request_id, sequence.num_tokens):
                preempted.append(self._preempt_last())
                if preempted[-1] == sequence.request_id:
                    break
            else:
                self._plan(sequence, 1)
                budget -= 1
        for sequence in prefills:  # their blocks are theirs since they were admitted
            if not budget or sequence.request_id in preempted:
                break
            num_new = min(sequence.num_uncomputed, budget)
            self._plan(sequence, num_new)
            budget -= num_new
        return tuple(preempted)

    def _admit(self) -> tuple[str, ...]:
        """Move waiting sequences to the running ones while tokens, seats and blocks last; return the newcomers' ids."""
        first_scheduled: list[str] = []
        budget = self.limits.max_batch_tokens - sum(len(s.token_ids) for _, s in self._planned)
        while self._waiting and budget and len(self._running) < self.limits.max_num_seqs:
            sequence = self._waiting[0]
            # One block a running sequence stays free: each may need one soon, and a newcomer that is
            # preempted in the next step has cost a prefill and brought nothing.
            needed = blocks_for(sequence.num_tokens, self.limits.block_size) + len(self._running)
            if self._running and needed > self.blocks.num_free:
                break
            if not self.blocks.grow(sequence.request_id, sequence.num_tokens):
                raise EngineFailed(f"request {sequence.request_id} does not fit an empty KV cache")
            insort(self._running, self._waiting.pop(0), key=_rank)
            sequence.num_prefill = sequence.num_tokens
            num_new = min(sequence.num_uncomputed, budget)
            self._plan(sequence, num_new)
            budget -= num_new
            if not sequence.was_scheduled:
                sequence.was_scheduled = True
                first_scheduled.append(sequence.request_id)
        return tuple(first_scheduled)

    def _plan(self, sequence: SequenceState, num_new: int) -> None:
        start = sequence.num_computed
        scheduled = ScheduledSequence(
            request_id=sequence.request_id,
            start=start,
            token_ids=sequence.token_ids[start : start + num_new],
            block_table=self.blocks.table(sequence.request_id),
            is_sampled=start + num_new == sequence.num_tokens,
            sampling=sequence.request.sampling,
            is_decode=start >= sequence.num_prefill,
        )
        self._planned.append((sequence, scheduled))

    def _preempt_last(self) -> str:
        """Take the blocks of the least important running sequence and let it wait in its place."""
        sequence = self._running.pop()
        self.blocks.free(sequence.request_id)
        sequence.num_computed = 0
        insort(self._waiting, sequence, key=_rank)
        self.num_preemptions += 1
        return sequence.request_id

    def _remove(self, sequence: SequenceState) -> None:
        del self._sequences[sequence.request_id]
        self.blocks.free(sequence.request_id)
        self._place_of(sequence).remove(sequence)

    def _place_of(self, sequence: SequenceState) -> list[SequenceState]:
        """Return the list that holds an unfinished sequence."""
        index = bisect_left(self._running, sequence.rank, key=_rank)
        is_running = index < len(self._running) and self._running[index] is sequence
        return self._running if is_running else self._waiting
