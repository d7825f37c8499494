"""One request in flight: what has been read of its answer and not been sent yet, its end, and its times."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from glm_edge.metrics.promises import Latencies, is_missed
from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from glm_worker.server.flights.news import News
from glm_worker.server.flights.replies import Ending
from glm_worker.server.flights.so_far import ReadSoFar
from glm_worker.server.jobs.job import Job, Room
from glm_worker.server.metrics.class_metrics import ClassMeasures, Time
from glm_worker.server.text.deltas import Delta, FinishReason, TokenLogprob, merged

_JOINED_TOKENS = 1024  # together, in half a millisecond: what is whole only at its end is a thousandth as many deltas

Spell = Callable[[TokenLogprob], TokenLogprob]


@dataclass(frozen=True)
class Ended:
    """How a flight ended: with a finish reason, with an error, or with neither because its client is gone."""

    finish_reason: FinishReason | None = None
    error: Exception | None = None

    @property
    def is_cancelled(self) -> bool:
        return self.finish_reason is None and self.error is None


class Flight:
    """Filled by the engine's side, emptied by the client's side; both live in one event loop."""

    def __init__(
        self,
        job: Job,
        now: float,
        measures: ClassMeasures,
        news: News | None = None,
        so_far: ReadSoFar | None = None,
    ) -> None:
        """news: set whenever there is something to take or the flight has ended; one for all flights of an order.

        so_far: what another group has written. An answer that was whole there is whole here.

        spell makes of each logprob, as it comes, what the surface tells of it. Those of a long answer, all at once at
        its end, would take seconds of the loop, and hundreds of MiB.
        """
        assert (so_far is None) == (job.begun is None)
        self.job = job
        self.news = news or News()
        self.reader = job.reader() if so_far is None else so_far.reader
        self.ended: Ended | None = None
        self.times = RequestTimes(now, measures)
        # Generated so far, by whatever generations and groups
        self.token_ids: list[int] = [] if so_far is None else so_far.token_ids
        self.engine_end: str | None = (
            None if so_far is None else so_far.engine_end
        )  # why the engine ended it, if it has
        self.num_cached_tokens: int | None = None  # of the prompt, as it was found first; None: no token has come
        self.spell: Spell | None = None
        self._deltas: list[Delta] = [] if so_far is None else so_far.deltas
        self._num_joined = len(self._deltas)  # of these: where nobody takes them, they are joined now and then
        if self.reader.finish_reason is not None:
            self.ended = Ended(self.reader.finish_reason)

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt, and those generated so far."""
        return len(self.job.prompt_token_ids) + self.reader.num_tokens

    def engine_request(self, room: Room) -> EngineRequest:
        """Return what is left to do, beginning with the tokens that are there. Raises RequestRefused without room."""
        return msgspec.structs.replace(self.job.engine_request(room), answer_token_ids=list(self.token_ids))

    def read(self, output: RequestOutput) -> None:
        """Take new tokens of the engine."""
        if self.num_cached_tokens is None and output.token_ids:
            self.num_cached_tokens = output.cached_tokens
        self.token_ids += output.token_ids
        self.engine_end = output.finish_reason
        deltas = self.reader.feed(output.token_ids, output.finish_reason, output.logprobs)
        if self.spell is not None and output.logprobs:
            deltas = [self.spell(delta) if isinstance(delta, TokenLogprob) else delta for delta in deltas]
        self._deltas += deltas
        if len(self._deltas) - self._num_joined > _JOINED_TOKENS:
            self._deltas[self._num_joined :] = merged(self._deltas[self._num_joined :])
            self._num_joined = len(self._deltas)
        self.news.set()

    def end(self, ended: Ended) -> None:
        assert self.ended is None
        self.ended = ended
        self.news.set()

    @property
    def ending(self) -> Ending:
        """How it ended and what it took. Only of a flight that has finished."""
        assert self.ended is not None
        assert self.ended.finish_reason is not None
        return Ending(
            reason=self.ended.finish_reason,
            num_prompt_tokens=len(self.job.prompt_token_ids),
            num_tokens=self.reader.num_tokens,
            num_reasoning_tokens=self.reader.num_reasoning_tokens,
            num_cached_tokens=self.num_cached_tokens or 0,
            stop=self.reader.stop,
        )

    def take(self) -> list[Delta]:
        """Return what was read since the last time."""
        taken, self._deltas, self._num_joined = self._deltas, [], 0
        return taken


class RequestTimes:
    """Turns the moments of a request into observations, each of which is made at most once, whatever is run again.

    The promise that it is judged by is the one of its arrival. It is judged once, and as missed as soon as that is so:
    a verdict that waited for the end of a long answer would come minutes late, and never for a client that gave up.
    """

    def __init__(self, arrival: float, measures: ClassMeasures) -> None:
        self.arrival = arrival
        self._measures = measures
        self._promise = measures.promise
        self._observed: set[Time] = set()  # of what comes once
        self._is_judged = False
        self.ttft: float | None = None
        self._ttfa: float | None = None
        self._last_token_at: float | None = None
        self._gaps_s = 0.0  # all together
        self._num_gaps = 0

    def scheduled(self, began_s: float) -> bool:
        """Note that the engine has begun with the request, in a step that began at began_s; return if that is new."""
        return self._observe_once("request_queue_time", began_s - self.arrival)

    def tokens(self, now: float, num_tokens: int, *, has_answer: bool) -> None:
        """Note that num_tokens came together. Their gap to the one before is shared evenly among them."""
        if num_tokens and self.ttft is None:
            self.ttft = now - self.arrival
            self._observe_once("time_to_first_token", self.ttft)
        if has_answer and self._ttfa is None:
            self._ttfa = now - self.arrival
            self._observe_once("time_to_first_answer_token", self._ttfa)
        if self._last_token_at is not None and num_tokens:
            gap_s = now - self._last_token_at
            self._gaps_s += gap_s
            self._num_gaps += num_tokens
            self._measures.observe("inter_token_latency", gap_s / num_tokens, num_tokens)
        if num_tokens:
            self._last_token_at = now
            self._judge_if_missed(now)

    def finished(self, now: float) -> None:
        """Note that the answer is complete, and judge it."""
        e2e = now - self.arrival
        self._measures.observe("e2e_request_latency", e2e)
        itl = self._gaps_s / self._num_gaps if self._num_gaps else None
        self._judge(Latencies(ttft=self.ttft, ttfa=self._ttfa, itl=itl, e2e=e2e))

    def failed(self) -> None:
        """Note that there will be no whole answer: no promise was kept."""
        self._judge(None)

    def cancelled(self, now: float) -> None:
        """Note that its client is gone: maybe because it had waited for longer than promised."""
        self._judge_if_missed(now)

    def unfinished(self, now: float) -> None:
        """Note that its client still waits: maybe for longer than promised."""
        self._judge_if_missed(now)

    def _observe_once(self, time: Time, seconds: float) -> bool:
        """Observe a time of which a request has one, unless an earlier run has; return whether that is new."""
        is_new = time not in self._observed
        if is_new:
            self._observed.add(time)
            self._measures.observe(time, seconds)
        return is_new

    def _judge_if_missed(self, now: float) -> None:
        if self._promise is None or self._is_judged:
            return
        if is_missed(self._promise.thresholds_s, ttft=self.ttft, ttfa=self._ttfa, age_s=now - self.arrival):
            self._judge(None)

    def _judge(self, measured: Latencies | None) -> None:
        if not self._is_judged:
            self._is_judged = True
            self._measures.judge(self._promise, measured)
