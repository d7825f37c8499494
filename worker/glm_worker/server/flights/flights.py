"""All requests in flight, between the clients' connections and the engine of the generation that serves.

Owns the journal and carries out what it decides. Everything here is synchronous and runs in the event loop's thread, so
no client ever sees a state between two decisions.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from glm_worker.errors import AnswerFailed, EngineFailed, GenerationLost, Overloaded, RequestRefused
from glm_worker.messages import Cancel, EngineLimits, RequestOutput, StepBegins, StepDone, Submit, ToEngine
from glm_worker.server.flights.flight import Ended, Flight
from glm_worker.server.flights.journal import Journal
from glm_worker.server.flights.news import News
from glm_worker.server.flights.replies import Generated
from glm_worker.server.flights.so_far import ReadSoFar
from glm_worker.server.jobs.job import Job, Room, room_of
from glm_worker.server.metrics.outcomes import Outcome
from glm_worker.server.metrics.telemetry import Gauges, Telemetry
from glm_worker.server.slo import Headers, NoHeaders

log = logging.getLogger(__name__)

_NO_HEADERS = NoHeaders()


class Engine(Protocol):
    """Where messages to the serving generation go."""

    generation: str

    def send(self, message: ToEngine) -> None: ...


class Flights:
    """room: what to hold requests to until the first generation says what it can do."""

    def __init__(
        self,
        journal: Journal,
        telemetry: Telemetry,
        room: Room,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._telemetry = telemetry
        self.room = room
        self._clock = clock
        self._flights: dict[str, Flight] = {}
        self._engine: Engine | None = None
        self._limits: EngineLimits | None = None
        self._last_step: StepDone | None = None
        self._closed_for_s: int | None = None
        self._suspended_for_s: int | None = None
        self._suspended_by = ""
        self.num_finished = 0  # by the generation that serves
        self.kernels = ""  # what computes the layers; empty: none has served, or it does not say
        self.deterministic: bool | None = None  # whether its answers depend on their requests alone; None: none served

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def in_flight_tokens(self) -> int:
        """What would have to be computed again if the group went away now.

        The tokens of every request in flight, waiting or running: its prompt's and those generated so far. What has not
        been generated yet is not guessed. A request whose body is still read or tokenised counts 0.
        """
        return sum(flight.num_tokens for flight in self._flights.values())

    @property
    def is_served(self) -> bool:
        """Whether a generation computes what is in flight."""
        return self._engine is not None

    @property
    def admits(self) -> bool:
        """Whether anything is admitted now, if there is room for it."""
        return self._closed_for_s is None and self._suspended_for_s is None

    @property
    def obstacle(self) -> Overloaded | None:
        """Why a request would not be answered now: it would be refused, or wait for a generation. None: it would be."""
        if self._closed_for_s is not None:
            return Overloaded("this server is draining and takes no more requests", retry_after_s=self._closed_for_s)
        if self._suspended_for_s is not None:
            return _unavailable(self._suspended_for_s)
        if self._engine is None:
            return Overloaded("no generation serves yet; requests wait for one", retry_after_s=1)
        return None

    @property
    def no_room(self) -> Overloaded | None:
        """Why nothing would be admitted now, whatever it is. None: something may be."""
        if not self.admits:
            return self.obstacle
        return self._journal.full

    def progress(self, job_id: str) -> Generated | None:
        """Return what a job has generated so far in this run; None when it is over."""
        flight = self._flights.get(job_id)
        if flight is None:
            return None
        reader = flight.reader
        return Generated(reader.num_tokens, reader.num_reasoning_tokens, flight.num_cached_tokens or 0)

    def close(self, retry_after_s: int) -> None:
        """Admit nothing from now on."""
        self._closed_for_s = retry_after_s

    def suspend(self, reason: str, retry_after_s: int) -> None:
        """No generation will serve soon: end what waits for one, and admit nothing until resume.

        reason: names pods and ranks, so it is for the log. Clients are told that there is one.
        """
        if reason != self._suspended_by:  # the supervisor says it again and again
            log.warning("requests are refused: %s", reason)
        self._suspended_by = reason
        self._suspended_for_s = retry_after_s
        for request_id in self._journal.held():
            self.fail(self._flights[request_id], _unavailable(retry_after_s))

    def resume(self) -> None:
        """A generation starts: what is admitted waits for it."""
        self._suspended_for_s = None
        self._suspended_by = ""

    def admit(self, job: Job, headers: Headers = _NO_HEADERS) -> Flight:
        """Take a job in and submit it, or hold it until a generation serves. Raises RequestRefused and Overloaded."""
        (flight,) = self.admit_all([job], headers)
        return flight

    def admit_all(
        self,
        jobs: Sequence[Job],
        headers: Headers = _NO_HEADERS,
        *,
        age_s: float = 0.0,
        so_far: Sequence[ReadSoFar] = (),
    ) -> list[Flight]:
        """Take the jobs of one order in, all of them or none. Raises RequestRefused and Overloaded.

        age_s: since the request came. Its client waits from then on, for a template and a grammar as well. so_far: of
        each job, where another group has begun with them.
        """
        measures = [self._telemetry.class_of(thinking=job.thinking, headers=headers) for job in jobs]
        try:
            self._enter(jobs)
        except RequestRefused:  # the client's mistake: no promise is about it
            self._telemetry.ended("refused")
            raise
        except Overloaded:
            self._telemetry.ended("refused")
            measures[0].judge(measures[0].promise, None)
            raise
        now, news = self._clock(), News()
        flights = []
        read_of: Sequence[ReadSoFar | None] = so_far or [None] * len(jobs)
        for job, measured, read in zip(jobs, measures, read_of, strict=True):
            self._telemetry.admitted(thinking=job.thinking)
            measured.received(len(job.prompt_token_ids))
            flight = Flight(job, now - age_s, measured, news, read)
            flights.append(flight)
            if flight.ended is None:
                self._flights[job.id] = flight
            else:  # in another group
                self._journal.end(job.id)
                self._telemetry.ended("finished")
        self._submit_due()
        return flights

    def cancel(self, flight: Flight) -> None:
        """The client is gone: the engine frees the blocks at once. Without effect on a flight that has ended."""
        if flight.ended is None:
            flight.times.cancelled(self._clock())
            self._end(flight, "cancelled", Ended())

    def fail(self, flight: Flight, error: Exception) -> None:
        """End a flight with an error. Without effect on one that has ended."""
        if flight.ended is None:
            self._end(flight, "refused" if isinstance(error, RequestRefused) else "failed", Ended(error=error))

    def fail_all(self, error: Exception) -> int:
        """End whatever is left with an error, and return how many that were."""
        left = list(self._flights.values())
        for flight in left:
            self.fail(flight, error)
        return len(left)

    def serve(self, engine: Engine, limits: EngineLimits) -> None:
        """A generation is ready: it gets everything that is held."""
        self._engine = engine
        self._limits = limits
        self.room = room_of(limits)
        self._last_step = None
        self.num_finished = 0
        self._telemetry.generation_began()
        self._journal.serve(engine.generation)
        self._submit_due()

    def lose(self, generation: str, cause: str) -> None:
        """A generation is dead. Its requests go on in the next one; who is to blame for it ends with an error.

        cause: names pods and ranks, so it is for the log.
        """
        if self._engine is not None and self._engine.generation == generation:
            self._engine = None
            self._last_step = None
        losses = self._journal.lose(generation)
        for request_id in losses.failed:
            flight = self._flights.pop(request_id)
            flight.end(Ended(error=GenerationLost("the group that wrote this answer failed; try again")))
            flight.times.failed()
            self._telemetry.ended("failed")
        if losses.held or losses.failed:
            num_held, num_failed = len(losses.held), len(losses.failed)
            log.info("generation=%s lost: %d requests held, %d failed: %s", generation, num_held, num_failed, cause)

    def begin_step(self, begins: StepBegins) -> None:
        """Note which requests the serving engine computes from now on: who may be why it dies."""
        for request_id in begins.preempted:
            self._journal.preempt(request_id)
        for request_id in begins.scheduled:
            self._journal.compute(request_id)
        if self._journal.has_due:
            self._submit_due()

    def step(self, done: StepDone) -> None:
        """Take what one step of the serving engine brought. Outputs of requests that have ended are dropped."""
        now = self._clock()
        self._last_step = done
        self._telemetry.step(done, time.time())
        for request_id in done.scheduled:
            self._schedule(request_id, done.began_s)
        num_tokens = num_reasoning = 0
        for output in done.outputs:
            flight = self._flights.get(output.request_id)
            if flight is None:
                continue
            self._schedule(output.request_id, done.began_s)
            self._journal.put_out(output.request_id)
            reader = flight.reader
            before, reasoning_before = reader.num_tokens, reader.num_reasoning_tokens
            try:
                self._read(flight, output, now, before)
            except Exception as error:
                log.exception("request=%s cannot be read", output.request_id)
                self.fail(flight, error)
            num_tokens += reader.num_tokens - before
            num_reasoning += reader.num_reasoning_tokens - reasoning_before
        self._telemetry.reasoning_tokens.inc(num_reasoning)  # once a step: each takes a lock
        self._telemetry.answer_tokens.inc(num_tokens - num_reasoning)
        if self._journal.has_due:
            self._submit_due()

    def gauges(self) -> Gauges:
        """Return what stands now. What is held or on its way to the engine waits, though the engine does not know.

        Of these the engine says only what the last step of the serving generation did, and nothing while none serves.
        What waits, how long, and what is in flight is known here, whether or not an engine answers. Promises that were
        broken since the last step are counted first: while no engine answers there is no step.
        """
        now = self._clock()
        for flight in self._flights.values():
            flight.times.unfinished(now)
        known, limits, step = self._journal, self._limits, self._last_step
        oldest = known.oldest_waiting()
        here = Gauges(
            num_waiting=known.num_waiting,
            num_tokens_waiting=known.num_tokens_waiting,
            oldest_waiting_s=0.0 if oldest is None else now - self._flights[oldest].times.arrival,
            in_flight_tokens=self.in_flight_tokens,
            max_running=(limits and limits.max_num_seqs) or known.max_running,
            block_size=0 if limits is None else limits.block_size,
            num_blocks=0 if limits is None else limits.num_blocks,
            kernels=self.kernels,
        )
        if step is None or limits is None:
            return here
        return replace(
            here,
            num_running=step.num_running,
            num_waiting=max(step.num_waiting, here.num_waiting),  # the engine also counts preempted ones
            num_tokens_waiting=max(step.num_tokens_waiting, here.num_tokens_waiting),
            num_cached_waiting=step.num_cached_waiting,
            num_tokens_left=step.num_prompt_tokens_left,  # what is on its way to the engine waits
            kv_cache_usage=step.kv_blocks_used / limits.num_blocks,
        )

    def _enter(self, jobs: Sequence[Job]) -> None:
        """Write all of these into the journal, or none."""
        if self._closed_for_s is not None:
            raise Overloaded("this server is draining and takes no more requests", retry_after_s=self._closed_for_s)
        if self._suspended_for_s is not None:
            raise _unavailable(self._suspended_for_s)
        for job in jobs:
            job.engine_request(self.room)  # refuses what can never fit, before it waits
        self._journal.limits.check_order([len(job.prompt_token_ids) for job in jobs])
        entered: list[str] = []
        try:
            for job in jobs:
                self._journal.admit(job.id, len(job.prompt_token_ids), job.priority)
                entered.append(job.id)
        except Overloaded:
            for job_id in entered:
                self._journal.end(job_id)
            raise

    def _schedule(self, request_id: str, began_s: float) -> None:
        self._journal.schedule(request_id)
        if (flight := self._flights.get(request_id)) is not None and flight.times.scheduled(began_s):
            self._telemetry.prompt_tokens.inc(len(flight.job.prompt_token_ids))

    def _read(self, flight: Flight, output: RequestOutput, now: float, tokens_before: int) -> None:
        if output.finish_reason == "cancelled":  # and nobody here asked for it: those flights have ended
            raise EngineFailed(f"the engine gave up request {output.request_id}")
        if output.finish_reason == "failed":  # this one only: the engine goes on, and the sentence is for the client
            cause = output.error or "the engine cannot answer this request"
            if output.is_fault:
                log.error("request=%s failed: %s", output.request_id, cause)
                ended = Ended(error=AnswerFailed(cause))
            else:
                ended = Ended(error=RequestRefused(cause, code="cannot_be_answered"))
            self._end(flight, "failed", ended, engine_has_it=False)
            return
        reader = flight.reader
        is_first = flight.num_cached_tokens is None
        flight.read(output)
        if is_first and flight.num_cached_tokens is not None and flight.job.cache_seed:
            self._telemetry.looked_up(len(flight.job.prompt_token_ids), flight.num_cached_tokens)
        flight.times.tokens(now, reader.num_tokens - tokens_before, has_answer=reader.has_answer)
        if reader.finish_reason is not None:
            self.num_finished += 1
            self._telemetry.finished(reader.finish_reason)
            flight.times.finished(now)
            # The engine still has it when a stop string ended it here.
            self._end(flight, "finished", Ended(reader.finish_reason), engine_has_it=output.finish_reason is None)

    def _submit_due(self) -> None:
        for request_id in self._journal.due():
            assert self._engine is not None
            flight = self._flights[request_id]
            try:
                request = flight.engine_request(self.room)
                if request_id == self._journal.on_trial:  # it had a place before anybody who waits there has come
                    request = msgspec.structs.replace(request, deadline_ms=0)
                self._engine.send(Submit(self._engine.generation, request))
            except RequestRefused as error:  # it fitted the generation before, or the checkpoint, but not this one
                self._end(flight, "refused", Ended(error=error), engine_has_it=False)
            except (OverflowError, TypeError, ValueError) as error:  # it fits no message; those behind it must go on
                log.exception("request=%s cannot be told to the engine", request_id)
                self._end(flight, "failed", Ended(error=error), engine_has_it=False)

    def _end(self, flight: Flight, outcome: Outcome, ended: Ended, *, engine_has_it: bool = True) -> None:
        generation = self._journal.end(flight.job.id)
        del self._flights[flight.job.id]
        if engine_has_it and self._engine is not None and generation == self._engine.generation:
            self._engine.send(Cancel(generation, flight.job.id))
        flight.end(ended)
        self._telemetry.ended(outcome)
        if outcome in ("failed", "refused"):  # it had been admitted
            flight.times.failed()
        if self._journal.has_due:
            self._submit_due()


def _unavailable(retry_after_s: int) -> Overloaded:
    message = "temporarily unavailable: this group cannot start; try again later"
    return Overloaded(message, retry_after_s=retry_after_s)
