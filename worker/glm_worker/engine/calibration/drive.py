"""The server's end of a generation, in a calibration: it asks for what an experiment says, and notes every step."""

import itertools
import time
from collections.abc import Iterator

import msgspec
import zmq

from glm_worker.engine.calibration.experiments import Experiment
from glm_worker.engine.calibration.points import PointReader, StepPoint
from glm_worker.errors import EngineFailed
from glm_worker.messages import EngineReady, FromEngine, StepDone, Submit
from glm_worker.request import EngineRequest, SamplingParams

SILENCE_LIMIT_S = 120.0
POLL_S = 0.2


class Driver:
    """One generation. The requests sample and filter nothing out, as most clients ask."""

    def __init__(self, endpoint: str, generation: str, vocab_size: int) -> None:
        self._generation = generation
        self._vocab_size = vocab_size
        self._numbers = itertools.count()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint)
        self._is_closed = False

    def ready(self, limit_s: float) -> EngineReady:
        """Return what the engine says when it has loaded."""
        message = self._receive(limit_s)
        if not isinstance(message, EngineReady):
            raise EngineFailed(f"the engine began with {message}")
        return message

    def run(self, experiment: Experiment) -> list[StepPoint]:
        """Return the steps of one experiment, from an idle engine to an idle engine."""
        prompts = [*experiment.prompts, *([experiment.then] if experiment.then else [])]
        requests = [self._request(prompt, experiment.max_tokens) for prompt in prompts]
        reader = PointReader({request.request_id: len(request.prompt_token_ids) for request in requests})
        first = requests[: len(experiment.prompts)]
        later = requests[len(first) :]
        unfinished = {request.request_id for request in requests}
        silent = {request.request_id for request in first}
        self._submit(first)
        points = []
        for step in self._steps():
            points.append(reader.read(step))
            silent -= {output.request_id for output in step.outputs}
            unfinished -= {output.request_id for output in step.outputs if output.finish_reason}
            if not silent:
                self._submit(later)
                later = []
            if not unfinished:
                break
        return points

    def close(self) -> None:
        """Let go, from any thread: what waits for the engine raises EngineFailed soon."""
        self._is_closed = True

    def _submit(self, requests: list[EngineRequest]) -> None:
        for request in requests:
            self._socket.send(self._encoder.encode(Submit(self._generation, request)))

    def _request(self, num_tokens: int, max_tokens: int) -> EngineRequest:
        number = next(self._numbers)
        # Many different tokens, so that many experts work; the multiplier is a prime that no vocabulary divides
        token_ids = [(7919 * (i + 13 * number)) % self._vocab_size for i in range(num_tokens)]
        return EngineRequest(
            request_id=f"calibration-{number}",
            prompt_token_ids=token_ids,
            max_tokens=max_tokens,
            stop_token_ids=[],
            sampling=SamplingParams(seed=number),
            priority=number,  # one after the other, whatever their lengths: so the counts of a step say whose they are
        )

    def _steps(self) -> Iterator[StepDone]:
        while True:
            message = self._receive(SILENCE_LIMIT_S)
            if isinstance(message, StepDone) and message.generation == self._generation:
                yield message

    def _receive(self, limit_s: float) -> FromEngine:
        deadline_s = time.monotonic() + limit_s
        while not self._socket.poll(int(POLL_S * 1000)):
            if self._is_closed:
                raise EngineFailed(f"generation {self._generation} has ended")
            if time.monotonic() > deadline_s:
                raise EngineFailed(f"the engine has said nothing for {limit_s:.0f} s")
        return self._decoder.decode(self._socket.recv())
