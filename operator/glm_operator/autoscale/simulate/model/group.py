"""One group: continuous batching over a KV cache, step by step. Pure.

The policy is that of the worker's scheduler: first come, first served; running sequences first, one token each; what
is left of the token budget computes prompts in chunks; a newcomer is admitted with room for all its tokens; when the
cache is full the newest running sequence goes back to the head of the queue. Steps that are alike are one event.

Differences to the worker, which keep events few: a sequence loses half a block to rounding, whatever its length, and
within a run of alike steps all take the mean of their times.
"""

import heapq
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from glm_operator.autoscale.simulate.model.calibration import Calibration
from glm_operator.autoscale.simulate.trace import Arrival

_FINISH, _ANSWER = 0, 1


@dataclass(slots=True, eq=False)
class Request:
    """One request in its life. Times are seconds of the simulation."""

    arrival: Arrival
    slo_class: str
    left: int = 0  # prompt tokens to compute
    generated: int = 0
    num_tokens: int = 0  # to compute before the next token, when it was admitted
    joined: int = 0  # steps of the group when its decoding began
    epoch: int = 0  # a preemption makes what was scheduled before it void
    was_scheduled: bool = False
    first_token_at: float | None = None
    first_answer_at: float | None = None
    ended_at: float | None = None
    has_failed: bool = False
    latency: Mapping[str, float] = field(default_factory=dict)  # by signal; once it has ended
    is_met: bool = False


@dataclass(slots=True)
class Counters:
    """What the group's counters show. Names as in docs/design/0007-autoscaling.md, without unit and prefix."""

    requests_received: dict[str, int]
    prompt_tokens_received: dict[str, int]
    met: dict[str, int]
    missed: dict[str, int]
    histograms: dict[tuple[str, str], list[int]]  # class and signal: requests by bucket, not cumulative
    sums: dict[tuple[str, str], float]
    requests_ended: int = 0
    prefill_tokens: int = 0
    prefill_busy_s: float = 0.0
    decode_tokens: int = 0
    decode_steps: int = 0
    decode_busy_s: float = 0.0
    generated_tokens: int = 0
    busy_s: float = 0.0
    preemptions: int = 0


class Group:
    """A group that serves from serving_since_s on. Time only moves forward, by advance()."""

    def __init__(
        self,
        name: str,
        calibration: Calibration,
        edges: Mapping[tuple[str, str], Sequence[float]],
        thresholds: Mapping[str, Mapping[str, float]],
        serving_since_s: float,
        cold_start_s: float,
    ) -> None:
        """edges: of the histogram of a class and signal. thresholds: of a class, by signal."""
        self.name = name
        self.calibration = calibration
        self.serving_since_s = serving_since_s
        self.cold_start_s = cold_start_s
        self.is_draining = False
        self.ended: list[Request] = []  # since somebody last took them
        classes = {slo_class for slo_class, _ in edges}
        self.counters = Counters(
            requests_received=dict.fromkeys(classes, 0),
            prompt_tokens_received=dict.fromkeys(classes, 0),
            met=dict.fromkeys(classes, 0),
            missed=dict.fromkeys(classes, 0),
            histograms={key: [0] * (len(found) + 1) for key, found in edges.items()},
            sums=dict.fromkeys(edges, 0.0),
        )
        self._edges = edges
        self._thresholds = thresholds
        self._waiting: deque[Request] = deque()  # oldest first; the preempted are its head
        self._prefilling: list[Request] = []  # oldest first
        self._running: dict[int, Request] = {}  # by id, oldest first; those that prefill included
        self._events: list[tuple[int, int, int, int, Request]] = []  # (step, order, kind, epoch, request)
        self._order = 0
        self._steps = 0
        self._num_decoding = 0
        self._context = 0  # tokens in the KV cache of those that decode
        self._reserved = 0  # and of those that prefill, with all they will need
        self._waiting_tokens = 0  # prompt tokens of those that wait
        self._clock = serving_since_s  # the beginning of the run that is on its way
        self._step_s = 0.0  # of a step in this run
        self._run = 0  # steps in it; 0: idle
        self._chunks: list[tuple[Request, int]] = []
        self._prefill_share = 0.0  # of the time of the step

    # What it shows

    @property
    def is_idle(self) -> bool:
        return self._run == 0 and not self._waiting

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def prompt_tokens_waiting(self) -> int:
        return self._waiting_tokens

    @property
    def prompt_tokens_left(self) -> int:
        return sum(request.left for request in self._prefilling)

    @property
    def kv_usage(self) -> float:
        return min(1.0, self._tokens_held() / self.calibration.kv_tokens)

    def oldest_waiting_s(self, now_s: float) -> float:
        """Age of the oldest request that no step has computed yet."""
        return next((now_s - request.arrival.at_s for request in self._waiting if not request.was_scheduled), 0.0)

    def in_flight_tokens(self, now_s: float) -> float:
        """Prompts, and what is generated so far, of all requests. Cheap: it settles nothing."""
        ahead = 0.0
        if self._run and not self._chunks and self._num_decoding:
            ahead = self._num_decoding * min(self._run, max(0.0, (now_s - self._clock) / self._step_s))
        return self._context + self._reserved + self._waiting_tokens + ahead

    # What happens to it

    def add(self, request: Request, now_s: float) -> None:
        """Queue a request that arrives now. The step that is on its way goes on without it."""
        self.advance(now_s)
        counters = self.counters
        counters.requests_received[request.slo_class] += 1
        counters.prompt_tokens_received[request.slo_class] += request.arrival.prompt_tokens
        request.num_tokens = request.arrival.prompt_tokens
        self._waiting.append(request)
        self._waiting_tokens += request.num_tokens
        if self._run == 0:
            self._clock = max(self._clock, now_s)
            self._plan()
        elif self._run > 1:
            begun = min(self._run, max(1, math.ceil((now_s - self._clock) / self._step_s)))
            self._run = begun

    def advance(self, now_s: float) -> None:
        """Finish every run of steps that ends by now."""
        while self._run:
            end_s = self._clock + self._run * self._step_s
            if end_s > now_s:
                return
            self._finish(self._run)
            self._clock = end_s
            self._plan()

    def settle(self, now_s: float) -> None:
        """Advance, and count the whole steps of the run that is on its way: for a scrape."""
        self.advance(now_s)
        if self._run > 1:
            whole = min(self._run - 1, int((now_s - self._clock) / self._step_s))
            if whole > 0:
                run = self._run
                self._finish(whole)
                self._clock += whole * self._step_s
                self._run = run - whole

    def abandon(self) -> list[Request]:
        """Die: return the requests that were in flight."""
        lost = [*self._running.values(), *self._waiting]
        self._waiting.clear()
        self._running.clear()
        self._prefilling.clear()
        self._events.clear()
        self._run = self._num_decoding = self._context = self._reserved = self._waiting_tokens = 0
        return lost

    # Its steps

    def _tokens_held(self) -> float:
        return self._context + self._reserved + len(self._running) * self.calibration.block_size / 2

    def _plan(self) -> None:
        """Begin the next run at the clock; none when there is nothing to do."""
        calibration = self.calibration
        while len(self._running) > 1 and self._tokens_held() + self._num_decoding > calibration.kv_tokens:
            self._preempt_newest()
        if self._waiting:
            self._admit()
        if self._prefilling:
            self._plan_chunks()
        elif self._num_decoding:
            self._plan_decode()
        else:
            self._run = 0

    def _admit(self) -> None:
        calibration = self.calibration
        budget = calibration.max_batch_tokens - self._num_decoding - self.prompt_tokens_left
        while self._waiting and budget > 0 and len(self._running) < calibration.max_num_seqs:
            request = self._waiting[0]
            room = calibration.kv_tokens - self._tokens_held() - len(self._running) * calibration.block_size
            if self._running and request.num_tokens + calibration.block_size > room:
                return
            self._waiting.popleft()
            self._waiting_tokens -= request.num_tokens
            request.left = request.num_tokens
            request.was_scheduled = True
            self._reserved += request.num_tokens
            self._running[id(request)] = request
            self._prefilling.append(request)
            budget -= request.left

    def _plan_chunks(self) -> None:
        """Plan one step that computes prompts, and a token of each that decodes."""
        calibration, decoding = self.calibration, self._num_decoding
        budget = max(1, calibration.max_batch_tokens - decoding)
        total, contexts = 0, 0.0
        chunks = self._chunks = []
        for request in self._prefilling:
            if budget <= 0:
                break
            new = min(request.left, budget)
            start = request.num_tokens - request.left
            chunks.append((request, new))
            total += new
            contexts += new * (start + new / 2)
            budget -= new
        prefill_s = calibration.prefill_s(total, contexts)
        if decoding:
            decode_s = calibration.decode_s(decoding, self._context)
            base_s = max(calibration.prefill_base_s, calibration.decode_base_s)
            prefill_cost = prefill_s + calibration.prefill_base_s
            decode_cost = decode_s + calibration.decode_base_s
            self._step_s = base_s + prefill_s + decode_s
            self._prefill_share = prefill_cost / (prefill_cost + decode_cost)
        else:
            self._step_s = calibration.prefill_base_s + prefill_s
            self._prefill_share = 1.0
        self._run = 1

    def _plan_decode(self) -> None:
        """Plan steps that generate a token each, up to the next one that changes the batch."""
        calibration, decoding = self.calibration, self._num_decoding
        self._chunks = []
        steps = max(1, self._next_event() - self._steps)
        room = int((calibration.kv_tokens - self._tokens_held()) // decoding)
        if len(self._running) > 1:
            steps = max(1, min(steps, room))
        mean_context = self._context + decoding * (steps - 1) / 2
        self._step_s = calibration.decode_base_s + calibration.decode_s(decoding, mean_context)
        self._prefill_share = 0.0
        self._run = steps

    def _next_event(self) -> int:
        events = self._events
        while events[0][3] != events[0][4].epoch:
            heapq.heappop(events)
        return events[0][0]

    def _finish(self, steps: int) -> None:
        """Account for steps of the current run, which end in the future of the clock."""
        counters, decoding = self.counters, self._num_decoding
        seconds = steps * self._step_s
        counters.busy_s += seconds
        counters.prefill_busy_s += seconds * self._prefill_share
        counters.decode_busy_s += seconds * (1 - self._prefill_share)
        self._steps += steps
        if decoding:
            counters.decode_tokens += decoding * steps
            counters.decode_steps += steps
            counters.generated_tokens += decoding * steps
            self._context += decoding * steps
        end_s = self._clock + seconds
        events = self._events
        while events and events[0][0] <= self._steps:
            step, _, kind, epoch, request = heapq.heappop(events)
            if epoch != request.epoch:
                continue
            at_s = end_s - (self._steps - step) * self._step_s
            if kind == _ANSWER:
                request.first_answer_at = at_s
            else:
                self._leave(request)
                self._end(request, at_s)
        for request, new in self._chunks:
            counters.prefill_tokens += new
            request.left -= new
            if request.left == 0:
                self._prefilling.remove(request)
                self._reserved -= request.num_tokens
                self._first_token(request, end_s)

    def _first_token(self, request: Request, now_s: float) -> None:
        """The prompt is computed, and with it a token."""
        arrival = request.arrival
        request.generated += 1
        self.counters.generated_tokens += 1
        if request.first_token_at is None:
            request.first_token_at = now_s
        if request.first_answer_at is None and request.generated > arrival.thinking_tokens:
            request.first_answer_at = now_s
        self._num_decoding += 1
        self._context += request.num_tokens
        request.joined = self._steps
        left = arrival.output_tokens - request.generated
        if left <= 0:
            self._leave(request)
            self._end(request, now_s)
            return
        self._order += 1
        heapq.heappush(self._events, (self._steps + left, self._order, _FINISH, request.epoch, request))
        thinking_left = arrival.thinking_tokens + 1 - request.generated
        if request.first_answer_at is None and thinking_left <= left:
            self._order += 1
            heapq.heappush(self._events, (self._steps + thinking_left, self._order, _ANSWER, request.epoch, request))

    def _leave(self, request: Request) -> None:
        """Take a request that decodes out of the batch, and its tokens out of the KV cache."""
        self._num_decoding -= 1
        decoded = self._steps - request.joined
        self._context -= request.num_tokens + decoded
        request.generated += decoded
        del self._running[id(request)]

    def _preempt_newest(self) -> None:
        request = next(reversed(self._running.values()))
        self.counters.preemptions += 1
        if request.left:
            self._prefilling.remove(request)
            self._reserved -= request.num_tokens
            request.left = 0
            del self._running[id(request)]
        else:
            self._leave(request)
        request.epoch += 1
        request.num_tokens = request.arrival.prompt_tokens + request.generated
        self._waiting.appendleft(request)
        self._waiting_tokens += request.num_tokens

    def _end(self, request: Request, now_s: float) -> None:
        arrival, counters = request.arrival, self.counters
        request.ended_at = now_s
        first = request.first_token_at if request.first_token_at is not None else now_s
        answer = request.first_answer_at if request.first_answer_at is not None else now_s
        overhead_s = self.calibration.overhead_s
        gaps = arrival.output_tokens - 1
        latency = {
            "ttft": first - arrival.at_s + overhead_s,
            "ttfa": answer - arrival.at_s + overhead_s,
            "e2e": now_s - arrival.at_s + overhead_s,
        }
        if gaps > 0:
            latency["itl"] = (now_s - first) / gaps
        request.latency = latency
        thresholds = self._thresholds.get(request.slo_class, {})
        request.is_met = all(latency.get(signal, 0.0) <= limit for signal, limit in thresholds.items())
        for signal, seconds in latency.items():
            key = (request.slo_class, signal)
            counters.histograms[key][bisect_left(self._edges[key], seconds)] += 1
            counters.sums[key] += seconds
        counters.requests_ended += 1
        (counters.met if request.is_met else counters.missed)[request.slo_class] += 1
        self.ended.append(request)
