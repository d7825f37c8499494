"""Who answers: one group, step by step, with the prefix cache that the engine will have. Pure."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from simulated.workload import BLOCK, Block, Turn

from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8


@dataclass(eq=False)
class Flight:
    """A request at a group."""

    turn: Turn
    came_s: float
    handle: object
    pinned: list[Block] = field(default_factory=list)
    private: int = 0  # blocks that hold nothing anybody else could use, yet
    left: int = 0  # tokens to compute before the next one
    generated: int = 0
    hits: int | None = None  # tokens found in the cache when it was first admitted
    first_s: float | None = None


class Engine:
    """One group: continuous batching, prompts in chunks, a cache of shared blocks. First come, first served."""

    def __init__(self, speed: float = 1.0) -> None:
        """speed: how many times as fast as the usual one."""
        self.speed = speed
        self.waiting: deque[Flight] = deque()
        self.running: list[Flight] = []
        self.in_use: dict[Block, int] = {}
        self.unused: OrderedDict[Block, None] = OrderedDict()
        self.num_private = 0
        self.computed_tokens = 0
        self.prefill_busy_s = 0.0
        self.measured_tokens = 0
        self.chunks: list[tuple[Flight, int]] = []
        self.is_busy = False
        self.num_blocks = H200_AIR_FP8.kv_tokens // BLOCK

    @property
    def in_flight_tokens(self) -> int:
        flights = [*self.running, *self.waiting]
        return sum(flight.turn.prompt_tokens + flight.generated for flight in flights)

    @property
    def tokens_to_prefill(self) -> int:
        return sum(flight.left for flight in self.running) + sum(self._missing(flight) for flight in self.waiting)

    def _missing(self, flight: Flight) -> int:
        return flight.turn.prompt_tokens + flight.generated - BLOCK * len(self._cached(flight))

    def _cached(self, flight: Flight) -> list[Block]:
        """Return the blocks of a request from its first on that are there; its last token is never one of them."""
        turn, found = flight.turn, []
        for block in turn.blocks(turn.prompt_tokens + flight.generated - 1):
            if block not in self.in_use and block not in self.unused:
                break
            found.append(block)
        return found

    def _take(self, blocks: int) -> bool:
        """Make room for private blocks; False when those in use leave none."""
        while len(self.in_use) + len(self.unused) + self.num_private + blocks > self.num_blocks:
            if not self.unused:
                return False
            self.unused.popitem(last=False)
        self.num_private += blocks
        return True

    def _pin(self, block: Block) -> None:
        self.unused.pop(block, None)
        self.in_use[block] = self.in_use.get(block, 0) + 1

    def _leave(self, flight: Flight) -> None:
        """Give up all blocks; the last ones are forgotten before the first."""
        for block in reversed(flight.pinned):
            self.in_use[block] -= 1
            if not self.in_use[block]:
                del self.in_use[block]
                self.unused[block] = None
        self.num_private -= flight.private
        flight.pinned, flight.private = [], 0

    def _share(self, flight: Flight) -> None:
        """Let others use the whole blocks that are computed."""
        tokens = flight.turn.prompt_tokens + flight.generated - 1
        if tokens // BLOCK == len(flight.pinned):
            return
        for block in flight.turn.blocks(tokens)[len(flight.pinned) :]:
            self._pin(block)
            flight.pinned.append(block)
            flight.private -= 1
            self.num_private -= 1

    def plan(self) -> float | None:
        """Begin a step: return its seconds, or None when there is nothing to do."""
        for flight in list(self.running):
            tokens = flight.turn.prompt_tokens + flight.generated + 1
            if flight in self.running and not flight.left and tokens > BLOCK * (len(flight.pinned) + flight.private):
                while not self._take(1):
                    self._preempt(self.running[-1])
                if flight in self.running:
                    flight.private += 1
                else:
                    self.num_private -= 1
        budget = H200_AIR_FP8.max_batch_tokens - sum(not flight.left for flight in self.running)
        self.chunks = []
        for flight in self.running:
            budget = self._chunk(flight, budget)
        while self.waiting and budget > 0 and len(self.running) < H200_AIR_FP8.max_num_seqs:
            if not self._admit(self.waiting[0]):
                break
            self.running.append(self.waiting.popleft())
            budget = self._chunk(self.running[-1], budget)
        self.is_busy = bool(self.running)
        return self._seconds() if self.running else None

    def _admit(self, flight: Flight) -> bool:
        tokens = flight.turn.prompt_tokens + flight.generated
        flight.pinned = self._cached(flight)
        for block in flight.pinned:
            self._pin(block)
        needed = -(-(tokens + 1) // BLOCK) - len(flight.pinned)
        if not self._take(needed):
            self._leave(flight)
            return False
        flight.private = needed
        flight.left = tokens - BLOCK * len(flight.pinned)
        if flight.hits is None:
            flight.hits = BLOCK * len(flight.pinned)
        return True

    def _chunk(self, flight: Flight, budget: int) -> int:
        new = min(flight.left, budget)
        if new > 0:
            self.chunks.append((flight, new))
        return budget - max(0, new)

    def _preempt(self, flight: Flight) -> None:
        self.running.remove(flight)
        self._leave(flight)
        flight.left = 0
        self.waiting.appendleft(flight)

    def _seconds(self) -> float:
        decoding = [flight for flight in self.running if not flight.left]
        new = sum(tokens for _, tokens in self.chunks)
        contexts = 0.0
        for flight, tokens in self.chunks:
            contexts += tokens * (flight.turn.prompt_tokens + flight.generated - flight.left + tokens / 2)
        prefill_s = H200_AIR_FP8.prefill_s(new, contexts) if new else 0.0
        context = sum(flight.turn.prompt_tokens + flight.generated for flight in decoding)
        decode_s = H200_AIR_FP8.decode_s(len(decoding), context) if decoding else 0.0
        base_s = max(H200_AIR_FP8.prefill_base_s if new else 0.0, H200_AIR_FP8.decode_base_s if decoding else 0.0)
        self.computed_tokens += new
        self.measured_tokens += new
        self.prefill_busy_s += (prefill_s + (base_s if new else 0.0)) / self.speed
        return (base_s + prefill_s + decode_s) / self.speed

    def finish(self, now: float) -> tuple[list[Flight], list[Flight]]:
        """End the step: return who got a first token, and who is done."""
        firsts: list[Flight] = []
        decoding = [flight for flight in self.running if not flight.left]
        for flight, new in self.chunks:
            flight.left -= new
            if not flight.left:
                decoding.append(flight)
        done = []
        for flight in decoding:
            flight.generated += 1
            if flight.first_s is None:
                flight.first_s = now
                firsts.append(flight)
            self._share(flight)
            if flight.generated >= flight.turn.answer_tokens:
                done.append(flight)
        for flight in done:
            self.running.remove(flight)
            self._leave(flight)
        return firsts, done
