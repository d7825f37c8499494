"""Requests in flight, between a client's side and an engine that only exists as the messages it is sent."""

import json
from typing import Any

from glm_worker.messages import Cancel, EngineLimits, RequestOutput, StepBegins, StepDone, Submit, ToEngine
from glm_worker.server.flights.flight import Flight
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.journal import Journal, QueueLimits
from glm_worker.server.jobs.job import Job, Room
from glm_worker.server.metrics.telemetry import Telemetry
from glm_worker.server.text.deltas import Content
from unit.worker.orders import chat_job, completion_job
from unit.worker.server_builders import checkpoint, stop_id, tokenizer

LIMITS = EngineLimits(max_model_len=64, num_blocks=100, block_size=16)


class RecordingEngine:
    """What a generation was told."""

    def __init__(self, generation: str = "g1") -> None:
        self.generation = generation
        self.sent: list[ToEngine] = []

    def send(self, message: ToEngine) -> None:
        self.sent.append(message)

    @property
    def submitted(self) -> list[str]:
        return [message.request.request_id for message in self.sent if isinstance(message, Submit)]

    @property
    def begun_with(self) -> list[list[int]]:
        """The tokens of the answer that each request was submitted with."""
        return [message.request.answer_token_ids for message in self.sent if isinstance(message, Submit)]

    @property
    def cancelled(self) -> list[str]:
        return [message.request_id for message in self.sent if isinstance(message, Cancel)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """Flights with an engine, a clock and metrics that a test can look at."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.telemetry = Telemetry("m")
        queue = QueueLimits(**{"max_waiting_requests": 10, "max_waiting_tokens": 1000, "max_num_seqs": 4, **limits})
        self.flights = Flights(Journal(queue), self.telemetry, Room(64), self.clock)
        self.engine = RecordingEngine()

    def serve(self, generation: str = "g1", limits: EngineLimits = LIMITS) -> RecordingEngine:
        self.engine = RecordingEngine(generation)
        self.flights.serve(self.engine, limits)
        return self.engine

    def begin_step(self, *scheduled: Flight) -> None:
        self.flights.begin_step(StepBegins(self.engine.generation, [flight.job.id for flight in scheduled], []))

    def step(self, *outputs: RequestOutput, **gauges: Any) -> None:
        values = {
            "began_s": self.clock.now,
            "num_running": 0,
            "num_waiting": 0,
            "num_tokens_waiting": 0,
            "kv_blocks_used": 0,
            "num_preemptions": 0,
        }
        self.flights.step(
            StepDone(generation=self.engine.generation, outputs=list(outputs), step=1, **{**values, **gauges})
        )

    def value(self, series: str) -> float:
        lines = self.telemetry.exposition(self.flights.gauges()).splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " "))

    def outcomes(self) -> dict[str, float]:
        names = ("finished", "cancelled", "refused", "failed")
        counts = {name: self.value(f'glm_requests_total{{model="m",outcome="{name}"}}') for name in names}
        return {name: count for name, count in counts.items() if count}


def a_chat(**fields: Any) -> Job:
    body = {"model": "glm-nano", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, **fields}
    return chat_job(json.dumps(body).encode(), checkpoint())


def a_job(prompt: str = "1 2 3", **fields: Any) -> Job:
    return completion_job(json.dumps({"model": "glm-nano", "prompt": prompt, **fields}).encode(), checkpoint())


def tokens(flight: Flight, text: str, finish: Any = None) -> RequestOutput:
    ids = tokenizer().encode(text)
    return RequestOutput(flight.job.id, [*ids, stop_id()] if finish == "stop" else ids, finish)


def text(flight: Flight) -> str:
    return "".join(delta.text for delta in flight.take() if isinstance(delta, Content))


def prompt_len(flight: Flight) -> int:
    return len(flight.job.prompt_token_ids)
