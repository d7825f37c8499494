"""Rank 0's end of the link to the HTTP server: a ZMQ PAIR of one generation. The server binds, rank 0 connects."""

import msgspec
import zmq

from glm_worker.errors import EngineFailed
from glm_worker.messages import FromEngine, ToEngine


class ServerLink:
    """Sends without waiting, receives with a timeout. A dead server is the supervisor's to notice."""

    def __init__(self, endpoint: str, generation: str) -> None:
        self._generation = generation
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.set_hwm(0)  # a server that does not read must not make rank 0 look hung
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)

    def send(self, message: FromEngine) -> None:
        self._socket.send(self._encoder.encode(message))

    def receive(self, timeout_s: float) -> list[ToEngine]:
        """Return all commands of this generation that have come, after waiting at most timeout_s for the first."""
        commands: list[ToEngine] = []
        if timeout_s and not self._socket.poll(int(timeout_s * 1000)):
            return commands
        while True:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return commands
            try:
                command = self._decoder.decode(frame)
            except msgspec.DecodeError as error:
                raise EngineFailed(f"the server sent what is no command: {error}") from error
            if command.generation == self._generation:
                commands.append(command)
