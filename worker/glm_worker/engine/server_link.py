"""Rank 0's end of the link to the HTTP server: a ZMQ PAIR of one generation and one server. The server binds.

A server that has died or hung is replaced while the generation lives. The supervisor says so in rank 0's slot; from
then on nothing of the old one is obeyed, what it had asked for is cancelled, and the new one is told what the
generation can do. Weights and KV cache stay.
"""

import msgspec
import zmq

from glm_worker.assignment import endpoint_of
from glm_worker.errors import EngineFailed
from glm_worker.heartbeat import RankSlot
from glm_worker.messages import Cancel, EngineReady, FromEngine, StepBegins, StepDone, Submit, ToEngine
from glm_worker.scheduler.plan import ScheduledBatch

LOOK_MS = 50  # between two looks at the slot while there is nothing to do
RETRY_MS = 10  # between two tries to connect: a server that starts binds at any moment


class ServerLink:
    """Sends without waiting, receives with a timeout. A dead server is the supervisor's to notice."""

    def __init__(self, endpoint: str, generation: str, slot: RankSlot) -> None:
        """endpoint: of the first server. slot: of this rank; it says which server is to be met."""
        self._endpoint = endpoint
        self._generation = generation
        self._slot = slot
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
        self._ready: EngineReady | None = None
        self._asked: set[str] = set()  # ids of requests that the server has submitted and that have not ended
        self._preempted: set[str] = set()  # ids of requests that were, and have not been scheduled since
        self._num_preemptions = 0  # as sent last
        self._preemptions_before = 0  # those that servers before this one were told of
        self._server = slot.server
        self._socket = self._connected()

    def send(self, message: FromEngine) -> None:
        """Send to the server that is there, or to come. EngineReady is said again to each that follows."""
        match message:
            case EngineReady():
                self._ready = message
            case StepDone():
                message = self._noted(message)
        self._socket.send(self._encoder.encode(message))

    def begin(self, plan: ScheduledBatch) -> None:
        """Say which requests the step that begins computes, where these are others than in the step before."""
        scheduled = [*plan.first_scheduled]
        if self._preempted:
            scheduled += [each.request_id for each in plan.sequences if each.request_id in self._preempted]
            self._preempted.difference_update(scheduled)
        self._preempted.update(plan.preempted)
        if scheduled or plan.preempted:
            self.send(StepBegins(self._generation, scheduled, list(plan.preempted)))

    def receive(self, timeout_s: float) -> list[ToEngine]:
        """Return all commands of this generation that have come, after waiting at most timeout_s for the first.

        When another server takes the place of the one before, everything that this had asked for is cancelled.
        """
        has_come = not timeout_s or self._has_come(int(timeout_s * 1000))
        if self._slot.server != self._server:
            return self._meet_the_next()
        commands: list[ToEngine] = []
        while has_come:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return commands
            try:
                command = self._decoder.decode(frame)
            except msgspec.DecodeError as error:
                raise EngineFailed(f"the server sent what is no command: {error}") from error
            if command.generation == self._generation:
                if isinstance(command, Submit):
                    self._asked.add(command.request.request_id)
                commands.append(command)
        return commands

    def close(self) -> None:
        """Speak with no server any more."""
        self._socket.close()

    def _has_come(self, timeout_ms: int) -> bool:
        """Wait until a message has come; False: the time is over, or another server is to be met."""
        for waited_ms in range(0, timeout_ms, LOOK_MS):
            if self._slot.server != self._server:
                return False
            if self._socket.poll(min(LOOK_MS, timeout_ms - waited_ms)):
                return True
        return False

    def _meet_the_next(self) -> list[ToEngine]:
        self._socket.close()
        self._server = self._slot.server
        self._socket = self._connected()
        if self._ready is not None:
            self._socket.send(self._encoder.encode(self._ready))
        self._preemptions_before = self._num_preemptions
        left, self._asked = sorted(self._asked), set()
        return [Cancel(self._generation, request_id) for request_id in left]

    def _connected(self) -> "zmq.Socket[bytes]":
        connected: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        connected.set_hwm(0)  # a server that does not read must not make rank 0 look hung
        connected.setsockopt(zmq.LINGER, 0)
        connected.setsockopt(zmq.RECONNECT_IVL, RETRY_MS)
        connected.connect(endpoint_of(self._endpoint, self._server))
        return connected

    def _noted(self, done: StepDone) -> StepDone:
        """Return the message as this server is to have it, and note which requests have ended."""
        for output in done.outputs:
            if output.finish_reason is not None:
                self._asked.discard(output.request_id)
                self._preempted.discard(output.request_id)
        self._num_preemptions = done.num_preemptions
        if self._preemptions_before:
            return msgspec.structs.replace(done, num_preemptions=done.num_preemptions - self._preemptions_before)
        return done
