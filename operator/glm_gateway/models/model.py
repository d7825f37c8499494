"""One model, by the name that clients ask for: the groups behind it, and who waits for them."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from glm_edge.errors.failure import Failure
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.hold.room import Bounds, Demand, Ticket, WaitingRoom
from glm_gateway.hold.telling import Start
from glm_gateway.ladder.config import SloConfig
from glm_gateway.ladder.ladder import Rung, shed_for
from glm_gateway.models.overload import Overload
from glm_gateway.routing.book import Load
from glm_gateway.routing.classes import Place
from glm_gateway.routing.pick import SILENCE_S, Choice, Group, Request, owed_tokens
from glm_gateway.routing.retries import RetryBudget
from glm_gateway.routing.router import Router, Splits
from glm_gateway.surfaces.thinking import Mode, default_in
from glm_gateway.upstreams.upstream import Upstream

RUNNING_AT_ONCE = 64
"""Requests that a group is given at once of those that wait for it, where it does not say how many it runs."""

LATEST = 0.1
"""What the latest request counts in the mean of how long they last."""

QUEUE_S = 0.25
"""Of the oldest request that waits at a group: from there on it is a queue, and not the moment until its next step."""

UNKNOWN_START = Start(usual_s=None, began=None)
LOOK_AGAIN_S = 0.25


def _tell_nobody() -> None: ...


@dataclass(frozen=True)
class Overflow:
    """Where a request goes that has waited as long for a group."""

    upstream: Upstream
    after_s: float


@dataclass
class Model:
    """Use it from one event loop. in_turn: no group gets more than it runs at once; else only who waited is paced.

    slo: what requests are promised. overflow: None: they wait for groups only. Both may change at any time.
    default_mode: of thinking, as replies gave it away; None: none did yet.
    changed: called when a request comes, is placed or ends. active_s: when the last one did; None: none came yet.
    """

    name: str
    directory: Directory
    splits: Splits = field(default_factory=Splits)
    bounds: Bounds = field(default_factory=Bounds)
    in_turn: bool = False
    start: Start = UNKNOWN_START
    slo: SloConfig | None = None
    overflow: Overflow | None = None
    default_mode: Mode | None = None
    changed: Callable[[], None] = _tell_nobody
    token: str | None = None  # by which its groups know a gateway; None: as those of all others do
    deployment: str = ""  # whose groups these are; empty: the file does not say
    active_s: float | None = None
    awaits_groups: bool = True  # False: where no group is ready none will come, so nobody waits for one

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.router = Router(self.splits)
        self.retries = RetryBudget()
        self.room = WaitingRoom(self.bounds)
        self.numbers = itertools.count()
        self.overload = Overload(self.name, self.router.book.oldest_wait_s, lambda: self.is_ready)
        self._max_running: dict[str, int] = {}  # by group
        self._began_s: dict[int, float] = {}  # by the number of a charge: when it was placed
        self._lasts_s = 0.0  # from a request's placing to its end, of late; 0: none has ended
        self._num_running: Counter[str] = Counter()  # by group: of this gateway
        self._has_frames: dict[str, bool] = {}  # by group: as its replies were so far
        self._calls: dict[Ticket, tuple[Request, asyncio.Future[Choice | Failure]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def demand(self) -> Demand:
        return self.room.demand(self._loop.time())

    @property
    def is_ready(self) -> bool:
        """Whether any group takes requests."""
        return any(group.takes_requests for group in self.directory.groups)

    @property
    def retry_after_s(self) -> int:
        """When somebody who is refused now may come again: a group has started by then, or the line was worked off."""
        now = self._loop.time()
        if not self.is_ready:
            return max(1, self.start.retry_after_s(now))
        return self.overload.throughput.retry_after_s(len(self.room), now)

    @property
    def in_flight(self) -> Mapping[str, int]:
        """How many requests of this gateway each group has; a group that is gone may have some as well."""
        return dict(self._num_running)

    def arrive(self) -> None:
        """A request has come, wherever it goes."""
        self._note()

    def bound(self, bounds: Bounds) -> None:
        """Let this much wait from now on. Who waits already stays, for as long as was said then."""
        self.bounds = self.room.bounds = bounds

    def hear_reply(self, group: str, *, in_frames: bool) -> None:
        """Note how a group answered a generation. Who has once sent frames is not plain."""
        if self.has(group):
            self._has_frames[group] = in_frames or self._has_frames.get(group, False)

    def hear_thinking(self, header: str) -> None:
        """Note what a reply says of how it was answered: x-glm-thinking."""
        self.default_mode = default_in(header) or self.default_mode

    def is_plain(self, group: str) -> bool:
        """Tell whether a group answers without frames, as a worker from before: nobody can go on with its replies."""
        return self._has_frames.get(group) is False

    def answers_late(self, group: str) -> bool:
        """Tell whether a group may have no word for us before its whole reply is written: one from before frames.

        One that answered in frames does not. Of one that is not known yet it counts that it tells no load.
        """
        has_frames = self._has_frames.get(group)
        return not has_frames if has_frames is not None else self.directory.tells_no_load(group)

    def replace(self, members: Iterable[Member]) -> None:
        """Take the groups that there are now."""
        for gone in self.directory.replace(members):
            self.router.forget(gone)
            self._has_frames.pop(gone, None)
            if not self.has(gone):
                self._max_running.pop(gone, None)
        self._note_start()
        self.look()
        self.wake()
        self._refuse_who_waits_in_vain()

    def expect_groups(self, *, awaits: bool) -> None:
        """Note whether a group may come where none is."""
        self.awaits_groups = awaits
        self._refuse_who_waits_in_vain()

    @property
    def is_off(self) -> bool:
        """Whether there is no group, and none will come."""
        return not self.awaits_groups and not self.is_ready

    def switched_off(self) -> Failure:
        """Return what who asks is told then."""
        return Failure(
            503,
            f"{self.name} is switched off: its deployment asks for no group, and nothing scales it up",
            "service_unavailable",
            code="no_group_ready",
            retry_after_s=self.retry_after_s,
        )

    def _refuse_who_waits_in_vain(self) -> None:
        if not self.is_off:
            return
        for ticket, (_, call) in list(self._calls.items()):
            self.leave(ticket)
            if not call.done():
                call.set_result(self.switched_off())

    def hear(self, group: str, load: Load, heard_s: float) -> None:
        """Take what a group says of itself. heard_s: when it did, by the clock of the loop."""
        if self.has(group):
            self.directory.hear(group, heard_s)
            self.router.book.hear(group, load)
            if self.room and self._is_in_turn:
                self.wake()

    def hear_running(self, group: str, max_running: int) -> None:
        """Note how many requests a group runs at once."""
        self._max_running[group] = max(1, max_running)
        self.wake()

    def hear_start(self, start_s: float) -> None:
        """Note what a start was measured to take; it counts while no group is there to say so."""
        self.start = replace(self.start, usual_s=start_s)

    def look(self) -> None:
        """Look what requests wait, and how far the ladder is climbed for it; again soon, as long as there are any."""
        if self.overload.look(self._loop.time()):
            self.wake()
        self._plan_look()

    def route(self, request: Request) -> Choice | None:
        """Place a request that has just come; None: it has to wait, for a group or for its turn."""
        # Who waits though a place is free cannot have it, as where an arm of a canary has no group: it holds nobody up.
        if (self.room or self._is_in_turn) and not self._num_free():
            return None
        return self._route(request)

    def owed_tokens(self, request: Request) -> int:
        """Return the prompt tokens that a group has to compute for a request that waits, as expected."""
        return owed_tokens(request, self.directory.groups, self.router.book, self._loop.time())

    def has(self, group: str) -> bool:
        """Tell whether there is a group, ready or not."""
        return any(each.name == group for each in self.directory.groups)

    def served_as(self, group: str) -> str:
        """Return the name that a group knows the model by: another one than ours, while groups move to a new one."""
        return self.directory.served_as(group) or self.name

    def is_leaving(self, group: str) -> bool:
        """Tell whether a group is to be there no more: it drains, or is gone already."""
        found = next((each for each in self.directory.groups if each.name == group), None)
        return found is None or found.is_leaving

    def revision_of(self, group: str) -> str | None:
        """Return of which revision a group is; None: it is not there, or nobody says."""
        return next((each.revision or None for each in self.directory.groups if each.name == group), None)

    def charge(self, group: str) -> Choice:
        """Take a place at one group, for a request that is about what it keeps."""
        self._num_running[group] += 1
        self._note()
        charge = self.router.book.charge(group, owed=0, held=0)
        return Choice(group=group, why="only", wait_s=0.0, known_tokens=0, charge=charge)

    def shed(self, newcomer: Place) -> Failure | None:
        """Make room for a newcomer where the ladder says so; return why there is none for it."""
        if self.overload.rung is not Rung.SHED or not self.is_ready:
            return None
        refused = shed_for(newcomer, [ticket.place for ticket in self.room if ticket.may_be_shed])
        if refused is None:
            return None
        failure = Failure(
            503,
            f"{self.name} has more requests than it can answer in time, and others go first",
            "service_unavailable",
            code="overloaded",
            retry_after_s=self.retry_after_s,
        )
        if refused is newcomer:
            return failure
        ticket = next(ticket for ticket in self.room if ticket.place is refused)
        _, call = self._calls[ticket]
        self.leave(ticket)
        if not call.done():
            call.set_result(failure)
        return None

    def wait(self, ticket: Ticket, request: Request) -> asyncio.Future[Choice | Failure]:
        """Return what has the choice once the request, which waits in the room, is placed. Then call `leave`.

        A failure comes instead where it is refused for somebody else.
        """
        call: asyncio.Future[Choice | Failure] = self._loop.create_future()
        self._calls[ticket] = (request, call)
        self._note()
        self.wake()
        self._plan_look()
        return call

    def leave(self, ticket: Ticket) -> None:
        """A request waits no more, placed or not."""
        self.room.leave(ticket)
        self._calls.pop(ticket, None)
        self._note()

    def end(self, choice: Choice) -> None:
        """Take a request off its group, once."""
        self.overload.throughput.end(self.router.book.held_of(choice.charge))
        self.router.end(choice)
        if (began_s := self._began_s.pop(choice.charge.number, None)) is not None:
            lasted_s = self._loop.time() - began_s
            self._lasts_s += (LATEST if self._lasts_s else 1.0) * (lasted_s - self._lasts_s)
        self._num_running[choice.group] -= 1
        if not self._num_running[choice.group]:
            del self._num_running[choice.group]
        self._note()
        self.wake()

    def wake(self) -> None:
        """Place those that wait, in order, as long as there is a group that would run one more at once.

        Who cannot be placed, as on an arm without a group, holds nobody up.
        """
        for ticket in self.room:
            if not self._num_free():
                return
            request, call = self._calls.get(ticket, (None, None))
            if request is None or call is None or call.done():
                continue
            choice = self._route(request)
            if choice is not None:
                self.leave(ticket)
                call.set_result(choice)

    @property
    def _is_in_turn(self) -> bool:
        return self.in_turn or self.overload.rung >= Rung.IN_TURN

    def _route(self, request: Request) -> Choice | None:
        full = [group.name for group in self._able() if not self._room_at(group)] if self._is_in_turn else ()
        now, waits_s = self._loop.time(), {group.name: self._slot_wait_s(group.name) for group in self._able()}
        choice = self.router.route(request, self.directory.groups, now, full=full, waits_s=waits_s)
        if choice is not None:
            self._num_running[choice.group] += 1
            self._began_s[choice.charge.number] = now
            self._note()
        return choice

    def _note(self) -> None:
        self.active_s = self._loop.time()
        self.changed()

    def _num_free(self) -> int:
        """Return how many requests the groups would run at once beside those that this gateway has there."""
        return sum(self._room_at(group) for group in self._able())

    def _able(self) -> list[Group]:
        return [group for group in self.directory.groups if group.takes_requests]

    def _room_at(self, group: Group) -> int:
        """Return how many requests a group would run at once beside those of this gateway.

        In turn it is 0 while some wait there, as those of another gateway: they would wait before ours.
        """
        is_heard = group.heard_s is not None and self._loop.time() - group.heard_s <= SILENCE_S
        if self._is_in_turn and is_heard and self.router.book.oldest_wait_s(group.name) > QUEUE_S:
            return 0
        return max(0, self._max_running.get(group.name, RUNNING_AT_ONCE) - self._num_running[group.name])

    def _slot_wait_s(self, group: str) -> float:
        """Return how long a request would wait at a group until one of this gateway's ends there: all slots are taken.

        One of so many ends each so many-th part of what a request lasts. Of a group that does not say how many it runs
        nothing is expected.
        """
        most = self._max_running.get(group)
        over = 0 if most is None else self._num_running[group] - most + 1
        return 0.0 if most is None or over <= 0 else over * self._lasts_s / most

    def _note_start(self) -> None:
        """Note since when the first group is on its way, while none is ready."""
        is_starting = bool(self.directory.groups) and not self.is_ready
        if not is_starting:
            self.start = replace(self.start, began=None)
        elif self.start.began is None:
            self.start = replace(self.start, began=self._loop.time())

    def _plan_look(self) -> None:
        """Look again soon, while there is a reason: nothing tells when a group that failed may be tried again, or that
        one fell silent which waits of others kept us from."""
        if self._timer is None and (self.overload.has_work or self.room):
            self._timer = self._loop.call_later(LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()
        if self.room:
            self.wake()
