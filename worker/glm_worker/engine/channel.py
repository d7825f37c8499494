"""The step channel: rank 0 tells the other ranks what came from outside, so that all make the same plan.

ZMQ, messages in msgpack; over a socket file when one pod has all ranks, else over TCP. Rank 0 binds; each follower
connects under a name made of the generation's secret, so neither a rank of another generation nor a stranger who
reaches the port is listened to or told anything. A dead or silent peer is not noticed here: that is the supervisors'
work.
"""

import msgspec
import zmq

from glm_worker.assignment import RankAssignment
from glm_worker.errors import EngineFailed
from glm_worker.messages import ToEngine

REPEAT_S = 0.25  # of a sign of life: half of what an idle rank may be silent
MAX_LOADED_BYTES = 1024  # of what rank 0 is ever sent; who sends more is hung up on
MAX_ERROR_CHARS = 200  # of a report: in UTF-8 and with an id beside it below the bytes of a message


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """Follower to leader: my weights are loaded, and this many KV blocks fit beside them."""

    num_blocks: int


class Report(msgspec.Struct, frozen=True, tag=True):
    """Follower to leader: this rank cannot go on with a request, though it keeps step.

    Rank 0 fails the request on all ranks, by a command of a later step. A rank that cannot keep step ends instead.
    """

    request_id: str
    error: str  # a sentence without anything of prompt or answer


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Leader to all: every rank has loaded; this many KV blocks fit on each."""

    num_blocks: int


class Committed(msgspec.Struct, frozen=True, tag=True):
    """What was sampled from the oldest step that was not committed, in the order of its logits: one or more of each.

    Nothing of a sequence that has ended, or whose cancellation comes next.
    """

    token_ids: list[list[int]]


Event = Committed | ToEngine
"""What changes a scheduler between two plans."""


class StepInput(msgspec.Struct, frozen=True, tag=True):
    """Leader to all: what the next step needs besides what every rank knows."""

    step: int  # of the plan; that of the step before where nothing could be planned beside it
    events: list[Event]  # since the last plan, in order
    digest: int  # of the leader's plans up to this step; a follower whose own differs must not run it
    max_prefill_tokens: int | None = None  # of prompts in this step: by the leader's clock, which is nobody else's


class KeepAlive(msgspec.Struct, frozen=True, tag=True):
    """Leader to all: there is nothing to do."""


FromLeader = Begin | StepInput | KeepAlive
FromFollower = Loaded | Report


def step_endpoint(assignment: RankAssignment, host: str) -> str:
    """Return where a generation's step channel is. host: where rank 0 listens, or where the others find it. Pure."""
    if assignment.meeting_dir is not None:
        return f"ipc://{assignment.meeting_dir}/steps"
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "*"  # of both families: pod 0's name may resolve to either
    elif ":" in host:
        host = f"[{host}]"
    return f"tcp://{host}:{assignment.channel_port}"


class LeaderChannel:
    """The end of rank 0. Without followers nothing is bound or sent."""

    def __init__(self, endpoint: str, secret: str, world_size: int) -> None:
        self._names = {_name(secret, rank): rank for rank in range(1, world_size)}
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromFollower] = msgspec.msgpack.Decoder(FromFollower)
        self._socket: zmq.Socket[bytes] | None = None
        if not self._names:
            return
        self._socket = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.SNDHWM, 0)  # never block on a slow follower: its own watchdog judges it
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_LOADED_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a follower that reconnects keeps its name
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise EngineFailed(f"rank 0 cannot bind the step channel at {endpoint}: {error}") from error

    def agree(self, num_blocks: int) -> int:
        """Wait until every rank has loaded; return, and tell all, the least number of blocks."""
        loaded: dict[int, int] = {0: num_blocks}
        while self._socket is not None and len(loaded) <= len(self._names):
            heard = self._hear(*self._socket.recv_multipart())
            if heard is not None and isinstance(heard[1], Loaded):
                loaded[heard[0]] = heard[1].num_blocks
        least = min(loaded.values())
        self.send(Begin(least))
        return least

    def reports(self) -> list[tuple[int, Report]]:
        """Return what followers have reported since, with their ranks; never waits."""
        found: list[tuple[int, Report]] = []
        while self._socket is not None:
            try:
                heard = self._hear(*self._socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
            if heard is not None and isinstance(heard[1], Report):  # Loaded is said until it was answered
                found.append((heard[0], heard[1]))
        return found

    def _hear(self, name: bytes, *frames: bytes) -> "tuple[int, FromFollower] | None":
        """Return who said what; None for a stranger, or a follower of another generation, which will find its own
        leader.
        """
        rank = self._names.get(name)
        return None if rank is None else (rank, self._decoder.decode(frames[0]))

    def send(self, message: FromLeader) -> None:
        """Send to every follower, without waiting."""
        if self._socket is None:
            return
        frame = self._encoder.encode(message)
        for name in self._names:
            self._socket.send_multipart([name, frame])

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class FollowerChannel:
    """The end of one other rank."""

    def __init__(self, endpoint: str, secret: str, rank: int) -> None:
        self._decoder: msgspec.msgpack.Decoder[FromLeader] = msgspec.msgpack.Decoder(FromLeader)
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.ROUTING_ID, _name(secret, rank))
        self._socket.connect(endpoint)  # resolved and tried again in the background

    def agree(self, num_blocks: int) -> int:
        """Say that this rank has loaded until the leader answers; return the least number of blocks of all ranks.

        Repeated because the port may for a moment still belong to a dying leader of another generation. Raises
        EngineFailed if rank 0 has begun and its word was lost on the way: it says it once.
        """
        while True:
            self.send(Loaded(num_blocks))
            message = self.receive(REPEAT_S)
            if isinstance(message, Begin):
                return message.num_blocks
            if message is not None:
                raise EngineFailed("rank 0 has begun, and this rank was not told: its connection broke in between")

    def report(self, request_id: str, error: str) -> None:
        """Tell rank 0 that this rank cannot go on with a request."""
        self.send(Report(request_id, error[:MAX_ERROR_CHARS]))

    def send(self, message: FromFollower) -> None:
        self._socket.send(msgspec.msgpack.encode(message))

    def receive(self, timeout_s: float) -> FromLeader | None:
        """Return the next message, or None when none came in time."""
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return self._decoder.decode(self._socket.recv())

    def close(self) -> None:
        self._socket.close()


def _name(secret: str, rank: int) -> bytes:
    return f"{secret}/{rank}".encode()
