"""What rank 0 speaks with, stood in for: the server, the followers' channel, the heartbeat slot."""

from glm_worker.engine.channel import FromLeader, Report
from glm_worker.messages import FromEngine, ToEngine
from glm_worker.scheduler.plan import ScheduledBatch


class FakeServer:
    """The server's end of the link: commands to come, one list a turn, and what was sent."""

    def __init__(self) -> None:
        self.commands: list[list[ToEngine]] = []
        self.timeouts: list[float] = []
        self.sent: list[FromEngine] = []

    def begin(self, plan: ScheduledBatch) -> None:
        """Hear which step begins."""

    def receive(self, timeout_s: float) -> list[ToEngine]:
        self.timeouts.append(timeout_s)
        return self.commands.pop(0) if self.commands else []

    def send(self, message: FromEngine) -> None:
        self.sent.append(message)


class FakeChannel:
    def __init__(self) -> None:
        self.sent: list[FromLeader] = []
        self.reported: list[tuple[int, Report]] = []

    def send(self, message: FromLeader) -> None:
        self.sent.append(message)

    def reports(self) -> list[tuple[int, Report]]:
        reported, self.reported = self.reported, []
        return reported


class FakeSlot:
    def __init__(self) -> None:
        self.signs: list[int | str] = []

    def beat(self, step: int) -> None:
        self.signs.append(step)

    def alive(self) -> None:
        """A step goes on."""

    def idle(self) -> None:
        self.signs.append("idle")
