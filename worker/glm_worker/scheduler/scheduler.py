"""Owns the requests between arrival and end: continuous batching over paged KV blocks.

A step is schedule(), run on the device (not here), commit(). Between any two calls requests may be added and cancelled.
The same calls in the same order give the same plans, so every rank runs its own copy and no plan crosses the wire. A
step may be planned while the one before runs: then the tokens that this one samples are not known, and stand as such in
the plan. Such a plan preempts nobody, for the commit may free what it lacks: where decodes lack blocks it is empty, and
the next one, made when all is committed, preempts.

Policy: the most important first: by priority, then deadline, then arrival. A step first gives one token to each running
sequence that decodes, in that order. What is left of the budget goes to prefills: a higher priority takes what it needs
before a lower one gets any, and within a priority lanes share it (lanes.py): prompts of like size are served in order,
those of different sizes side by side, so a long one does not hold up every newer short one.

A sequence is admitted with blocks for all its known tokens, so a prefill that has begun is never cut short by its own
size; those blocks of its beginning that others have left or hold are found and not computed again, all but its last
token. It waits while the next of them is being computed for another. Who does not get the blocks is overtaken by
nobody. A waiting sequence preempts nobody, however important.

When blocks run out the least important running sequence is preempted: it loses its blocks, waits in its place in the
order and goes on later, its sampled tokens kept. What nobody needed meanwhile it finds again. Each time that it was
preempted doubles the room that must be free beside it when it is admitted again, so that it gets on in between.

Within a priority nothing starves: after patience_steps a request goes before all deadlines of its priority, oldest
first. A lower priority waits for ever while a higher one fills the group: that is what a priority is.

Invariant: of those that run, the most important one is never preempted and gets tokens in every step.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from operator import attrgetter

from glm_worker.errors import EngineFailed
from glm_worker.messages import FinishReason, RequestOutput
from glm_worker.request import EngineRequest
from glm_worker.scheduler.block_manager import BlockManager, blocks_for
from glm_worker.scheduler.lanes import LaneShares, lane_of, short_tokens
from glm_worker.scheduler.limits import SchedulerLimits, why_it_never_fits
from glm_worker.scheduler.plan import UNKNOWN_TOKEN, ScheduledBatch, ScheduledSequence
from glm_worker.scheduler.prefix import KEY_BYTES
from glm_worker.scheduler.sequence import SequenceState

PATIENCE_STEPS = 1000  # some 20 s of a busy group
_MOST_DOUBLINGS = 20
_rank = attrgetter("rank")


class Scheduler:
    """Every public method leaves the books balanced; check() raises if one did not."""

    def __init__(
        self, limits: SchedulerLimits, patience_steps: int = PATIENCE_STEPS, *, max_uncommitted: int = 1
    ) -> None:
        """max_uncommitted: steps that may be planned and not committed; 2 to plan one while another runs."""
        self.limits = limits
        self._max_uncommitted = max_uncommitted
        self._patience_steps = patience_steps
        self._short = short_tokens(limits.max_batch_tokens)
        self.blocks = BlockManager(limits.num_blocks, limits.block_size)
        self.step = 0
        self.num_preemptions = 0
        self._num_arrived = 0
        self._sequences: dict[str, SequenceState] = {}  # every unfinished request
        self._waiting: list[SequenceState] = []  # by rank
        self._running: list[SequenceState] = []  # by rank
        self._patient: deque[SequenceState] = deque()  # by arrival; those that have ended are dropped late
        self._planned: list[tuple[SequenceState, ScheduledSequence]] = []  # of the step that is planned last
        self._uncommitted: deque[list[tuple[SequenceState, ScheduledSequence]]] = deque()
        self._coming: dict[
            bytes, int
        ] = {}  # keys of blocks that the step being planned may fill, and for which priority

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
        """Tokens of the waiting sequences."""
        return sum([len(sequence.token_ids) for sequence in self._waiting])

    @property
    def num_cached_waiting(self) -> int:
        """Of these, the ones that the cache had when it was looked up last. They may be gone when it is their turn."""
        return sum([sequence.num_expected for sequence in self._waiting])

    @property
    def num_prompt_tokens_left(self) -> int:
        """Tokens that the running sequences must compute before each of them generates; recomputed ones count."""
        return sum([s.num_prefill - s.num_computed for s in self._running if s.num_computed < s.num_prefill])

    def add(self, request: EngineRequest) -> RequestOutput | None:
        """Queue a request. One that can never fit, or has its whole answer, ends here: its output is returned."""
        if request.request_id in self._sequences:
            raise EngineFailed(f"request {request.request_id} was submitted while it is still in the engine")
        if why_it_never_fits(request, self.limits) is not None:
            return RequestOutput(request.request_id, [], "length")
        sequence = SequenceState(request, self._num_arrived, self.step)
        if sequence.finish_reason is not None:
            return RequestOutput(request.request_id, [], sequence.finish_reason)
        block_size = self.limits.block_size
        if len(request.block_hashes) != KEY_BYTES * (sequence.num_prompt // block_size):
            sequence.forget_keys()
        self._expect_cached(sequence, len(self.blocks.found(sequence.keys(block_size))))
        self._num_arrived += 1
        self._sequences[request.request_id] = sequence
        insort(self._waiting, sequence, key=_rank)
        self._patient.append(sequence)
        return None

    def cancel(self, request_id: str, reason: FinishReason = "cancelled") -> RequestOutput | None:
        """End a request and free its blocks at once. None if it has ended already, or never was.

        reason failed: what it has computed may not be finite, so nobody finds its blocks, and they are zeroed.
        """
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return None
        sequence.finish_reason = reason
        self._remove(sequence)
        return RequestOutput(request_id, [], reason)

    def schedule(self, max_prefill_tokens: int | None = None) -> ScheduledBatch:
        """Plan the next step; commit() must follow it, unless it is empty. A plan is empty when no request is left, or
        all that are left, or one that lacks a block, wait for what is not committed; then it is no step.

        max_prefill_tokens: of prompts, at least 1; so that a step takes no longer than decodes can bear.
        """
        if len(self._uncommitted) >= self._max_uncommitted:
            raise EngineFailed(f"step {self.step} was not committed before the next was planned")
        if not self._sequences or (self._uncommitted and self._lacks_blocks()):
            return ScheduledBatch(self.step, (), (), ())
        self.step += 1
        self._planned = []
        self._end_patience()
        prefills, preempted = self._plan_decodes()
        budget = self.limits.max_batch_tokens - sum([len(scheduled.token_ids) for _, scheduled in self._planned])
        if max_prefill_tokens is not None:
            budget = min(budget, max(1, max_prefill_tokens))
        newcomers = self._plan_prefills(prefills, budget, admits=not preempted)
        first_scheduled = []
        for sequence in newcomers:
            if not sequence.was_scheduled:
                sequence.was_scheduled = True
                first_scheduled.append(sequence.request_id)
        if not self._planned and self._uncommitted:
            self.step -= 1
            return ScheduledBatch(self.step, (), (), ())
        self._uncommitted.append(self._planned)
        planned = tuple([scheduled for _, scheduled in self._planned])
        zeroed = self.blocks.take_unclean()
        return ScheduledBatch(self.step, planned, tuple(first_scheduled), tuple(preempted), zeroed)

    @property
    def sampled(self) -> list[SequenceState]:
        """The sequences of the oldest uncommitted plan whose next token is sampled, in the order of their logits."""
        planned = self._uncommitted[0] if self._uncommitted else []
        return [sequence for sequence, scheduled in planned if scheduled.is_sampled]

    def newest_sampled(self) -> list[tuple[SequenceState, ScheduledSequence]]:
        """Return the sequences of the newest plan whose next token is sampled, and what was planned of each."""
        return [planned for planned in self._planned if planned[1].is_sampled]

    def commit(self, sampled: Mapping[str, Sequence[int]]) -> list[RequestOutput]:
        """Take the sampled tokens of the oldest uncommitted plan and return what is new, in the order of the plan.

        sampled: one or several tokens for each sequence of the plan that is_sampled; those of requests cancelled
        meanwhile are dropped, and those behind the end of an answer. Finished sequences free their blocks. Where the
        next step is planned already, there is one token for each.
        """
        planned = self._uncommitted.popleft() if self._uncommitted else []
        wanted = {scheduled.request_id for _, scheduled in planned if scheduled.is_sampled}
        if wanted != sampled.keys():
            raise EngineFailed(f"step {self.step} wanted tokens for {sorted(wanted)} and got {sorted(sampled)}")
        outputs = []
        block_size = self.limits.block_size
        for sequence, scheduled in planned:
            if sequence.finish_reason is not None:
                continue  # cancelled while it ran
            num_full = (scheduled.start + len(scheduled.token_ids)) // block_size
            if num_full > sequence.num_published:
                self._publish(sequence, num_full)
            if scheduled.is_sampled:
                outputs.append(self._append(sequence, sampled[scheduled.request_id]))
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
            "running sequences know their blocks": all(
                s.block_table is self.blocks.table(s.request_id) for s in self._running
            ),
            "blocks hold what is computed": all(
                held[s.request_id] * block_size >= s.num_computed for s in self._running
            ),
            "no block is held in vain": all(
                held[s.request_id] <= blocks_for(s.num_tokens + s.num_unknown, block_size) for s in self._running
            ),
            "waiting sequences have nothing computed": all(
                s.num_computed == s.num_unknown == 0 and s.block_table is None for s in self._waiting
            ),
            "something is left to compute": all(s.num_uncomputed >= 1 for s in order),
            "what others can find is computed": all(
                s.num_published * block_size <= s.num_computed for s in self._running
            ),
        }
        if broken := [claim for claim, holds in claims.items() if not holds]:
            raise EngineFailed(f"the scheduler's books after step {self.step} break: {'; '.join(broken)}")

    def _lacks_blocks(self) -> bool:
        """Whether those that decode need more blocks for a token each than are free."""
        block_size = self.limits.block_size
        if self.blocks.num_free >= len(self._running):  # each needs one at most
            return False
        num_missing = sum(
            [
                sequence.num_tokens + sequence.num_unknown > len(sequence.block_table or ()) * block_size
                for sequence in self._running
                if not (sequence.num_unknown and sequence.has_last_token_on_its_way)
            ]
        )
        return num_missing > self.blocks.num_free

    def _end_patience(self) -> None:
        """Let those go before all deadlines of their priority that came patience_steps ago."""
        while self._patient and (
            self._patient[0].finish_reason is not None
            or self.step - self._patient[0].arrived_step > self._patience_steps
        ):
            sequence = self._patient.popleft()
            if sequence.finish_reason is None:
                places = self._place_of(sequence)
                places.pop(bisect_left(places, sequence.rank, key=_rank))
                sequence.lose_patience()
                insort(places, sequence, key=_rank)

    def _plan_decodes(self) -> tuple[list[SequenceState], list[str]]:
        """Plan the running sequences that decode; return those that do not, and the ids of those preempted.

        Decodes go first, or the prompt of an important newcomer would halt every answer. Tokens are left for that
        prompt: it was admitted with what decodes left, and while it is not whole nobody else of its lane is.
        """
        preempted: list[str] = []
        decodes: list[SequenceState] = []
        prefills: list[SequenceState] = []
        for sequence in self._running:
            num_unknown = sequence.num_unknown
            is_next = len(sequence.token_ids) + num_unknown - sequence.num_computed == 1
            if num_unknown and sequence.has_last_token_on_its_way:
                continue  # the commit ends it
            (decodes if is_next or sequence.num_computed >= sequence.num_prefill else prefills).append(sequence)
        budget, block_size = self.limits.max_batch_tokens, self.limits.block_size
        for sequence in decodes:
            num_tokens, table = len(sequence.token_ids) + sequence.num_unknown, sequence.block_table
            if not budget or table is None:  # preempted, as everybody behind it
                break
            if num_tokens > len(table) * block_size:
                while sequence.block_table is not None and not self.blocks.grow(sequence.request_id, num_tokens):
                    preempted.append(self._preempt_last())
                if sequence.block_table is None:  # it was the last one itself
                    break
            num_new = min(num_tokens - sequence.num_computed, budget)
            self._plan(sequence, num_new)
            budget -= num_new
        return [s for s in prefills if s.block_table is not None], preempted

    def _plan_prefills(self, prefills: list[SequenceState], budget: int, *, admits: bool) -> list[SequenceState]:
        """Plan running prefills and newcomers, one priority after the other; return the newcomers."""
        newcomers: list[SequenceState] = []
        self._coming = {}
        if self._waiting:
            on_their_way = [s for planned in self._uncommitted for s, _ in planned if s.finish_reason is None]
            for sequence in (*prefills, *on_their_way):
                self._expect(sequence)
        while budget and (prefills or (admits and self._waiting)):
            heads = [*prefills[:1], *(self._waiting[:1] if admits else ())]
            priority = min(sequence.rank[0] for sequence in heads)
            level = [sequence for sequence in prefills if sequence.rank[0] == priority]
            prefills = prefills[len(level) :]
            lanes = {sequence.lane for sequence in level}
            if admits:
                of_level = takewhile(lambda sequence: sequence.rank[0] == priority, self._waiting)  # noqa: B023
                lanes.update([sequence.lane for sequence in of_level])
            shares = LaneShares(budget, lanes)
            for sequence in level:
                shares.give(sequence)
            admits = admits and self._admit(priority, shares, newcomers)
            shares.share_the_rest()
            admits = admits and self._admit(priority, shares, newcomers)
            for sequence, num_new in sorted(shares.given.items(), key=lambda item: item[0].rank):
                if num_new:
                    self._plan(sequence, num_new)
            budget = shares.left
            admits = admits and not (self._waiting and self._waiting[0].rank[0] == priority)
        return newcomers

    def _admit(self, priority: int, shares: LaneShares, newcomers: list[SequenceState]) -> bool:
        """Move waiting sequences of a priority to the running ones while tokens last. False: no more in this step."""
        place = 0
        while place < len(self._waiting) and shares.left:
            sequence = self._waiting[place]
            if sequence.rank[0] != priority:
                break
            if len(self._running) >= self.limits.max_num_seqs:
                return False
            if not shares.is_open(sequence.lane):
                place += 1
                continue
            found = self._find(sequence)
            if found is None:
                return False
            if self._is_coming(sequence, len(found)):
                place += 1
                continue
            if not shares.is_open(sequence.lane):  # as much is to be computed as was not to be expected
                if not shares.has(sequence.lane):
                    break  # nobody overtakes it: it goes first when the rest is shared
                place += 1
                continue
            self._begin(place, found)
            shares.give(sequence)
            newcomers.append(sequence)
            self._expect(sequence)
        return True

    def _expect(self, sequence: SequenceState) -> None:
        """Note the next block that a prefill fills: who waits for just this one finds it in a step or two."""
        block_size, index = self.limits.block_size, sequence.num_published
        if sequence.shares and (index + 1) * block_size <= len(sequence.token_ids):
            key = sequence.key(index, block_size)
            self._coming[key] = min(sequence.rank[0], self._coming.get(key, sequence.rank[0]))

    def _is_coming(self, sequence: SequenceState, num_found: int) -> bool:
        """Whether the next block that a waiting sequence needs is being computed, for somebody no less important."""
        key = next(sequence.keys(self.limits.block_size, num_found), None)
        return key in self._coming and self._coming[key] <= sequence.rank[0]

    def _find(self, sequence: SequenceState) -> list[int] | None:
        """Return the blocks that hold the beginning of a waiting sequence. None: there are too few for the rest."""
        block_size, num_free = self.limits.block_size, self.blocks.num_free
        # One block a running sequence stays free: each may need one soon, and a newcomer that is preempted in the next
        # step has cost a prefill and brought nothing.
        spare = len(self._running) << min(sequence.num_preemptions, _MOST_DOUBLINGS)
        if spare and sequence.num_wanted + spare > num_free and not self.blocks.has(sequence.next_key):
            return None  # as before: a long one has many keys to look up
        found = self.blocks.found(sequence.keys(block_size))
        self._expect_cached(sequence, len(found))
        wanted = self.blocks.num_to_take(sequence.num_tokens, found)
        if not spare or wanted + spare <= num_free:
            return found
        sequence.num_wanted, sequence.next_key = wanted, next(sequence.keys(block_size, len(found)), None)
        return None

    def _expect_cached(self, sequence: SequenceState, num_blocks: int) -> None:
        """Note how much of a waiting sequence the cache has, and so which lane its prefill is in."""
        sequence.num_expected = num_blocks * self.limits.block_size
        sequence.lane = lane_of(sequence.num_tokens - sequence.num_expected, self._short)

    def _begin(self, place: int, found: list[int]) -> None:
        """Let a waiting sequence run, with these blocks and others."""
        sequence, block_size = self._waiting[place], self.limits.block_size
        if not self.blocks.admit(sequence.request_id, sequence.num_tokens, found):
            raise EngineFailed(f"request {sequence.request_id} does not fit an empty KV cache")
        del self._waiting[place]
        insort(self._running, sequence, key=_rank)
        sequence.block_table = self.blocks.table(sequence.request_id)
        sequence.num_prefill = sequence.num_tokens
        sequence.num_published = len(found)
        sequence.num_computed = len(found) * block_size
        sequence.num_wanted, sequence.next_key = 0, None
        if not sequence.was_scheduled:
            sequence.num_cached = min(sequence.num_computed, sequence.num_prompt)

    def _plan(self, sequence: SequenceState, num_new: int) -> None:
        start, tokens = sequence.num_computed, sequence.token_ids
        assert sequence.block_table is not None
        end = sequence.num_computed = start + num_new
        is_sampled = end == len(tokens) + sequence.num_unknown
        sequence.num_unknown += is_sampled
        new_tokens = tokens[start:end]
        if end > len(tokens):
            new_tokens.append(UNKNOWN_TOKEN)
        scheduled = ScheduledSequence(
            sequence.request_id,
            start,
            new_tokens,
            sequence.block_table,
            is_sampled,
            sequence.request.sampling,
            start >= sequence.num_prefill,
        )
        self._planned.append((sequence, scheduled))

    def _publish(self, sequence: SequenceState, num_full: int) -> None:
        """Let others find the blocks that a sequence has filled."""
        block_size, table = self.limits.block_size, sequence.block_table
        if sequence.shares and table is not None:
            for index in range(sequence.num_published, num_full):
                self.blocks.publish(table[index], sequence.key(index, block_size))
        sequence.num_published = num_full

    def _append(self, sequence: SequenceState, sampled: Sequence[int]) -> RequestOutput:
        """Add what was sampled, up to the end of the answer; return what is new."""
        sequence.num_unknown -= 1
        if len(sampled) > 1 and sequence.num_unknown:
            raise EngineFailed(f"{len(sampled)} tokens of {sequence.request_id} came, and the next step counts on one")
        token_ids, finish_reason = [], None
        for token_id in sampled:
            token_ids.append(token_id)
            finish_reason = sequence.append(token_id)
            if finish_reason is not None:
                self._remove(sequence)
                break
        if sequence.was_told:
            return RequestOutput(sequence.request_id, token_ids, finish_reason)
        sequence.was_told = True
        return RequestOutput(sequence.request_id, token_ids, finish_reason, cached_tokens=sequence.num_cached)

    def _preempt_last(self) -> str:
        """Take the blocks of the least important running sequence and let it wait in its place."""
        sequence = self._running.pop()
        self.blocks.free(sequence.request_id)
        self._expect_cached(sequence, sequence.num_published if sequence.shares else 0)
        sequence.block_table = None
        sequence.num_computed = sequence.num_published = 0
        sequence.num_preemptions += 1
        insort(self._waiting, sequence, key=_rank)
        self.num_preemptions += 1
        return sequence.request_id

    def _remove(self, sequence: SequenceState) -> None:
        places = self._place_of(sequence)
        places.pop(bisect_left(places, sequence.rank, key=_rank))
        del self._sequences[sequence.request_id]
        self.blocks.free(sequence.request_id, is_broken=sequence.finish_reason == "failed")
        sequence.block_table = None

    def _place_of(self, sequence: SequenceState) -> list[SequenceState]:
        """Return the list that holds an unfinished sequence."""
        return self._waiting if sequence.block_table is None else self._running
