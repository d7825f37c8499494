"""The books of requests in flight: which generation runs each one, and what happens to it when that generation dies.

A pure state machine: no clock, no sockets, no text. Every request that is admitted ends exactly once, and goes on in
the next generation when its own dies. But one that kills the ranks that compute it would kill every generation. So:

- Who only waited for its turn is never blamed, however often that happens.
- Who was computed in the step that died is a suspect. Suspects go one at a time: each is on trial until it has survived
  what may have killed (TRIAL_OUTPUTS). Who was suspected twice is on trial for as long as it runs, and goes last.
- A suspect had a place in the engine, and is to have one again soon: newcomers wait until all that are suspected once
  have theirs, which takes some steps for each. For those suspected twice nobody waits.
- When a generation dies while a suspect on trial is computed, that one is to blame, and ends. The others go on as they
  are: a third death is the least that it takes to end somebody who has nothing to do with any.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glm_worker.errors import Overloaded, RequestRefused

TRIAL_OUTPUTS = 2  # the first comes of all tokens that it had, the second of the token that came of these
LONG_TRIAL = 2  # suspicions, from which on a trial is as long as the run
RETRY_AFTER_S = 1  # a queue this size moves on within a second


@dataclass(frozen=True)
class QueueLimits:
    """How much may wait. What the engine has a free place for does not count as waiting."""

    max_waiting_requests: int
    max_waiting_tokens: int
    max_num_seqs: int

    def check_order(self, num_prompt_tokens: Sequence[int]) -> None:
        """Raise RequestRefused for answers of one request that not even an idle server admits at once."""
        num, most = len(num_prompt_tokens), self.max_num_seqs + self.max_waiting_requests
        if num == 1:
            return
        if num > most:
            raise RequestRefused(
                f"the request asks for {num} answers at once; allowed are {most}: {self.max_num_seqs} that are computed"
                f" and {self.max_waiting_requests} that wait",
                code="too_many_answers",
            )
        if num > self.max_num_seqs and sum(num_prompt_tokens) > self.max_waiting_tokens:
            raise RequestRefused(
                f"the prompts of the {num} answers have {sum(num_prompt_tokens)} tokens together; for more than"
                f" {self.max_num_seqs} answers at once {self.max_waiting_tokens} are allowed",
                code="too_many_answers",
            )


@dataclass(slots=True)
class Entry:
    """One request in flight. generation is None while it is held here; is_waiting until its first token is computed."""

    id: str
    num_prompt_tokens: int
    priority: int = 0  # lower goes first
    generation: str | None = None
    is_waiting: bool = True
    is_computed: bool = False  # in the step that is under way, as far as is known; not while it is preempted
    is_suspect: bool = False  # was computed in a step that died, and has not been cleared
    num_suspicions: int = 0
    num_outputs: int = 0  # while on trial

    @property
    def has_long_trial(self) -> bool:
        """Whether it is on trial for as long as it runs."""
        return self.num_suspicions >= LONG_TRIAL


@dataclass(frozen=True)
class Losses:
    """What the death of a generation did: these are held for the next one, those have ended as failed."""

    held: list[str]
    failed: list[str]


class Journal:
    """Requests in order of arrival."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._entries: dict[str, Entry] = {}
        self._num_waiting = 0
        self._num_tokens_waiting = 0
        self._num_suspects_held = 0
        self._num_newcomers_held = 0
        self._unplaced: set[str] = set()  # suspected once, and not computed since
        self.on_trial: str | None = None  # the generation has it
        self.generation: str | None = None  # the one that serves

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries))

    @property
    def limits(self) -> QueueLimits:
        return self._limits

    @property
    def num_waiting(self) -> int:
        return self._num_waiting

    @property
    def num_tokens_waiting(self) -> int:
        return self._num_tokens_waiting

    @property
    def max_running(self) -> int:
        """Requests that the engine is to run at once."""
        return self._limits.max_num_seqs

    def oldest_waiting(self) -> str | None:
        """Return the request that has waited longest since it arrived, of those that no step has computed."""
        return next((entry.id for entry in self._entries.values() if entry.is_waiting), None)

    @property
    def full(self) -> Overloaded | None:
        """Why no request is admitted now, however short it is; None: one may be."""
        if self._num_waiting_with_one() <= self._limits.max_waiting_requests:
            return None
        return Overloaded(
            f"the queue is full: {self._num_waiting} requests wait, {self._limits.max_waiting_requests} may",
            retry_after_s=RETRY_AFTER_S,
        )

    def admit(self, request_id: str, num_prompt_tokens: int, priority: int = 0) -> None:
        """Take a request in, held until `due` is asked. Raises Overloaded when too much waits already."""
        assert request_id not in self._entries
        if (full := self.full) is not None:
            raise full
        waiting = self._num_waiting_with_one()
        tokens = self._num_tokens_waiting + num_prompt_tokens
        if waiting > 0 and self._num_waiting and tokens > self._limits.max_waiting_tokens:
            raise Overloaded(
                f"the queue is full: {self._num_tokens_waiting} prompt tokens wait and this request has "
                f"{num_prompt_tokens}; {self._limits.max_waiting_tokens} may",
                retry_after_s=RETRY_AFTER_S,
            )
        entry = self._entries[request_id] = Entry(request_id, num_prompt_tokens, priority)
        self._count(entry, +1)
        self._count_held(entry, +1)

    def serve(self, generation: str) -> None:
        """Note that a generation takes requests from now on. The one before must have been lost first."""
        assert self.generation is None
        self.generation = generation

    def due(self) -> list[str]:
        """Return the held requests that must be submitted to the serving generation now, once.

        A suspect first, if none is on trial: with a short trial, the most important, with the shortest prompt, the
        oldest. Then the newcomers, oldest first, unless they wait for suspects.
        """
        if self.generation is None:
            return []
        held = [entry for entry in self._entries.values() if entry.generation is None]
        due = []
        if self._num_suspects_held and self.on_trial is None:
            suspects = [entry for entry in held if entry.is_suspect]
            suspect = min(suspects, key=lambda entry: (entry.has_long_trial, entry.priority, entry.num_prompt_tokens))
            self.on_trial, suspect.num_outputs = suspect.id, 0
            due.append(suspect)
        if not self._unplaced:
            due += [entry for entry in held if not entry.is_suspect]
        for entry in due:
            self._count_held(entry, -1)
            entry.generation = self.generation
        return [entry.id for entry in due]

    @property
    def has_due(self) -> bool:
        """Whether `due` would return any."""
        if self.generation is None:
            return False
        is_suspect_due = self._num_suspects_held > 0 and self.on_trial is None
        return is_suspect_due or (self._num_newcomers_held > 0 and not self._unplaced)

    def held(self) -> list[str]:
        """Return the requests that no generation has, oldest first."""
        return [entry.id for entry in self._entries.values() if entry.generation is None]

    def schedule(self, request_id: str) -> None:
        """Note that the engine has begun to compute a request: it waits no more. Said again it changes nothing."""
        entry = self._entries.get(request_id)
        if entry is not None and entry.is_waiting and entry.generation is not None:
            self._count(entry, -1)
            entry.is_waiting = False
            entry.is_computed = True
            self._unplaced.discard(request_id)

    def compute(self, request_id: str) -> None:
        """Note that the step that begins computes a request, for the first time or again after it was preempted."""
        self.schedule(request_id)
        entry = self._entries.get(request_id)
        if entry is not None and entry.generation is not None:
            entry.is_computed = True

    def preempt(self, request_id: str) -> None:
        """Note that the engine computes a request no more until it is scheduled again."""
        if (entry := self._entries.get(request_id)) is not None:
            entry.is_computed = False

    def put_out(self, request_id: str) -> None:
        """Note that a step has brought something of a request: one on trial may be cleared by it."""
        if request_id != self.on_trial:
            return
        entry = self._entries[request_id]
        entry.num_outputs += 1
        if not entry.has_long_trial and entry.num_outputs >= TRIAL_OUTPUTS:
            entry.is_suspect = False
            self.on_trial = None

    def end(self, request_id: str) -> str | None:
        """Take a request out, and return the generation that has it, if one does. The caller notes the outcome."""
        entry = self._entries.pop(request_id)
        if entry.is_waiting:
            self._count(entry, -1)
        if entry.generation is None:
            self._count_held(entry, -1)
        self._unplaced.discard(request_id)
        if request_id == self.on_trial:
            self.on_trial = None
        return entry.generation

    def lose(self, generation: str) -> Losses:
        """Note that a generation is dead. Requests it did not have are untouched."""
        losses = Losses([], [])
        if self.generation == generation:
            self.generation = None
        lost = [entry for entry in self._entries.values() if entry.generation == generation]
        to_blame = [entry for entry in lost if entry.is_computed and entry.id == self.on_trial]
        for entry in lost:
            if entry in to_blame:
                self.end(entry.id)
                losses.failed.append(entry.id)
            else:
                self._hold(entry, is_suspected=entry.is_computed and not to_blame)
                losses.held.append(entry.id)
        if lost:
            self.on_trial = None
        return losses

    def check(self) -> None:
        """Assert that the books are balanced."""
        waiting = [entry for entry in self._entries.values() if entry.is_waiting]
        assert self._num_waiting == len(waiting)
        assert self._num_tokens_waiting == sum(entry.num_prompt_tokens for entry in waiting)
        for entry in self._entries.values():
            assert entry.generation in (None, self.generation), "a dead generation keeps no request"
            assert entry.generation is not None or entry.is_waiting, "what nobody runs waits"
            assert not entry.is_computed or (entry.generation is not None and not entry.is_waiting)
            assert not entry.is_suspect or entry.generation is None or entry.id == self.on_trial, "one at a time"
        assert self.on_trial is None or self._entries[self.on_trial].is_suspect
        held = [entry.is_suspect for entry in self._entries.values() if entry.generation is None]
        assert (self._num_suspects_held, self._num_newcomers_held) == (held.count(True), held.count(False))
        suspects = [entry for entry in self._entries.values() if entry.is_suspect and not entry.has_long_trial]
        assert self._unplaced == {entry.id for entry in suspects if entry.is_waiting}

    def _hold(self, entry: Entry, *, is_suspected: bool) -> None:
        """Take a request back from a generation that is dead."""
        entry.generation = None
        entry.is_computed = False
        if not entry.is_waiting:
            entry.is_waiting = True
            self._count(entry, +1)
        if is_suspected:
            entry.is_suspect = True
            entry.num_suspicions += 1
        if entry.is_suspect and not entry.has_long_trial:
            self._unplaced.add(entry.id)
        self._count_held(entry, +1)

    def _num_waiting_with_one(self) -> int:
        """Return how many would wait with one more, without those that the engine has a free place for."""
        free_places = 0 if self.generation is None else max(0, self._limits.max_num_seqs - self._num_running())
        return self._num_waiting + 1 - free_places

    def _num_running(self) -> int:
        return len(self._entries) - self._num_waiting

    def _count(self, entry: Entry, sign: int) -> None:
        self._num_waiting += sign
        self._num_tokens_waiting += sign * entry.num_prompt_tokens

    def _count_held(self, entry: Entry, sign: int) -> None:
        if entry.is_suspect:
            self._num_suspects_held += sign
        else:
            self._num_newcomers_held += sign
