"""One request in flight: what has been read of its answer and not been sent yet, its end, and its times."""

import asyncio
from dataclasses import dataclass

from glm_worker.messages import RequestOutput
from glm_worker.server.deltas import Delta, FinishReason
from glm_worker.server.intake import Job
from glm_worker.server.telemetry import Telemetry


@dataclass(frozen=True)
class Ended:
    """How a flight ended: with a finish reason, with an error, or with neither because its client is gone."""

    finish_reason: FinishReason | None = None
    error: Exception | None = None


class Flight:
    """Filled by the engine's side, emptied by the client's side; both live in one event loop."""

    def __init__(self, job: Job, now: float) -> None:
        self.job = job
        self.reader = job.reader()
        self.ended: Ended | None = None
        self.times = RequestTimes(now)
        self._deltas: list[Delta] = []
        self._changed = asyncio.Event()

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt, and those generated so far in this run."""
        return len(self.job.prompt_token_ids) + self.reader.num_tokens

    def read(self, output: RequestOutput) -> None:
        """Take new tokens of the engine."""
        self._deltas += self.reader.feed(output.token_ids, output.finish_reason)
        self._changed.set()

    def restart(self) -> None:
        """Forget what was read: the answer begins anew. Only while nothing of it has been sent."""
        self.reader = self.job.reader()
        self.times.restart()
        self._deltas.clear()

    def end(self, ended: Ended) -> None:
        assert self.ended is None
        self.ended = ended
        self._changed.set()

    async def wait(self) -> None:
        """Wait until there is something to take, or the flight has ended."""
        while not self._deltas and self.ended is None:
            self._changed.clear()
            await self._changed.wait()

    async def wait_end(self) -> None:
        while self.ended is None:
            self._changed.clear()
            await self._changed.wait()

    def take(self) -> list[Delta]:
        """Return what was read since the last time."""
        taken, self._deltas = self._deltas, []
        return taken


class RequestTimes:
    """Turns the moments of a request into observations, each of which is made at most once, whatever is run again."""

    def __init__(self, arrival: float) -> None:
        self._arrival = arrival
        self._is_scheduled = False
        self._has_token = False
        self._has_answer = False
        self._last_token_at: float | None = None

    def restart(self) -> None:
        """The next token is not the successor of the last one."""
        self._last_token_at = None

    def scheduled(self, telemetry: Telemetry, began_s: float, num_prompt_tokens: int) -> None:
        """Note that the engine has begun with the request, in a step that began at began_s."""
        if not self._is_scheduled:
            self._is_scheduled = True
            telemetry.queue_time.observe(began_s - self._arrival)
            telemetry.prompt_tokens.inc(num_prompt_tokens)

    def tokens(self, telemetry: Telemetry, now: float, num_tokens: int, *, has_answer: bool) -> None:
        """Note that num_tokens came together. Their gap to the one before is shared evenly among them."""
        if num_tokens and not self._has_token:
            self._has_token = True
            telemetry.time_to_first_token.observe(now - self._arrival)
        if has_answer and not self._has_answer:
            self._has_answer = True
            telemetry.time_to_first_answer_token.observe(now - self._arrival)
        if self._last_token_at is not None:
            for _ in range(num_tokens):
                telemetry.inter_token_latency.observe((now - self._last_token_at) / num_tokens)
        if num_tokens:
            self._last_token_at = now

    def ended(self, telemetry: Telemetry, now: float) -> None:
        telemetry.e2e_latency.observe(now - self._arrival)
