"""This pod's share of the group: its zygote and its ranks of the running generation.

Both roles (leader, follower) hold one. It knows nothing of other pods; what dies here is told to on_failure, and the
role decides what follows.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from glm_worker.assignment import RankAssignment
from glm_worker.heartbeat import Phase, RankSlot, create_slots
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.backoff import backoff_s
from glm_worker.supervisor.children.children import Children
from glm_worker.supervisor.children.process import process_state
from glm_worker.supervisor.children.zygote import Event, RankExited, RankForked, ZygoteReady
from glm_worker.supervisor.children.zygote_client import ZygoteClient
from glm_worker.supervisor.evidence.causes import Cause, Exit, Failure, cut_short_cause, rank_cause
from glm_worker.supervisor.evidence.watchdog import RankReport, Stopwatch
from glm_worker.supervisor.group.protocol import StartGeneration
from glm_worker.supervisor.rundir import RunDir

_log = logging.getLogger("glm_worker.supervisor")

PING_INTERVAL_S = 1.0
ORPHAN_POLL_S = 0.01  # ranks of a dead zygote: nobody tells that the kernel has killed them
KILL_LIMIT_S = 5.0  # a rank that takes longer to die sits in a driver; its zygote is given up with it


class _Rank:
    """A local rank of the running generation."""

    def __init__(self, slot: RankSlot) -> None:
        self.slot = slot
        self.stopwatch = Stopwatch()
        self.pid: int | None = None
        self.is_gone = False


class Pod:
    """Start with start_zygote, then any number of generations, one at a time."""

    def __init__(
        self,
        settings: WorkerSettings,
        children: Children,
        run_dir: RunDir,
        rank_target: str,
        *,
        on_change: Callable[[], None],
        on_failure: Callable[[str | None, Failure], None],
    ) -> None:
        self.generation: str | None = None
        self._settings = settings
        self._children = children
        self._run_dir = run_dir
        self._rank_target = rank_target
        self._on_change = on_change
        self._on_failure = on_failure
        self._zygote: ZygoteClient | None = None
        self._forker: ZygoteClient | None = None  # the zygote whose children the ranks of the generation are
        self._ranks: dict[int, _Rank] = {}
        self._failures: list[Failure] = []
        self._pinged_at_s = 0.0
        self._gone = asyncio.Event()  # a rank or a zygote has ended

    @property
    def can_start(self) -> bool:
        return self.generation is None and self._zygote is not None and self._zygote.is_ready

    @property
    def import_seconds(self) -> float | None:
        return self._zygote.import_seconds if self._zygote else None

    async def keep_zygote(self) -> None:
        """Have a zygote for as long as this runs: start another when it ends, with backoff if it never got ready."""
        settings = self._settings
        num_failures = 0
        with self._run_dir.compile_listener() as listener:
            while True:
                await asyncio.sleep(backoff_s(num_failures, settings.backoff_base_s, settings.backoff_max_s))
                self._zygote = zygote = await ZygoteClient.start(
                    self._children, self._settings, self._rank_target, self._on_event, listener
                )
                zygote.ended.add_done_callback(lambda _: self._gone.set())
                try:
                    ended = await asyncio.shield(zygote.ended)
                    num_failures = 0 if zygote.import_seconds is not None else num_failures + 1
                    self._note_end_of(zygote, ended)
                finally:
                    zygote.is_told = True  # of one that we kill there is nothing to tell
                    await zygote.close()

    def start(self, start: StartGeneration, *, server: int = 0) -> None:
        """Fork the ranks. Needs can_start. server: which one rank 0 is to meet, where that is here."""
        assert self.can_start
        self._forker = self._zygote
        assert self._forker is not None
        settings = self._settings
        self.generation = generation = start.generation
        self._failures = []
        slots = self._run_dir.slots(generation)
        create_slots(slots, settings.ranks_per_pod)
        meeting_dir = str(self._run_dir.make_meeting(generation)) if settings.num_pods == 1 else None
        first = settings.pod_index * settings.ranks_per_pod
        self._ranks = {first + local: _Rank(RankSlot.open(slots, local)) for local in range(settings.ranks_per_pod)}
        self.meet(server)
        for local, rank in enumerate(self._ranks):
            self._forker.fork(
                RankAssignment(
                    rank=rank,
                    local_rank=local,
                    world_size=settings.world_size,
                    generation=generation,
                    secret=start.secret,
                    meeting_dir=meeting_dir,
                    leader_host=settings.leader_host,
                    store_port=start.store_port,
                    channel_port=start.channel_port,
                    server_endpoint=self._run_dir.endpoint(generation) if rank == 0 else None,
                    slots_path=str(slots),
                    num_local_slots=settings.ranks_per_pod,
                )
            )

    def meet(self, server: int) -> None:
        """Have rank 0 speak with this server from now on, if it is here."""
        if 0 in self._ranks:
            self._ranks[0].slot.meet(server)

    async def end(self) -> list[Failure]:
        """Kill the ranks, wait until they are gone, and return what had failed before we killed."""
        if self.generation is None:
            return []
        assert self._forker is not None
        self._forker.kill_ranks()  # of no effect when it is dead: then the kernel has killed them
        await self._wait_for_ranks(self._forker)
        if self._forker.ended.done():  # it may be why we were told to end, and is to be told under this generation
            self._note_end_of(self._forker, self._forker.ended.result())
        generation, self.generation = self.generation, None
        for rank in self._ranks.values():
            rank.slot.close()
        self._ranks = {}
        self._run_dir.forget(generation)
        self._on_change()
        return self._failures

    def look(self, now_s: float) -> list[RankReport]:
        """Return the evidence about each rank, and see whether the zygote answers. Call it several times a second."""
        if now_s - self._pinged_at_s >= PING_INTERVAL_S:
            self._pinged_at_s = now_s
            self._ping_zygote()
        reports = []
        for number, rank in self._ranks.items():
            view = rank.slot.snapshot()
            still_s = rank.stopwatch.look(view.changed_ns, now_s)
            state = process_state(rank.pid) if rank.pid is not None else ""
            reports.append(RankReport(rank=number, view=view, still_s=still_s, process_state=state))
        return reports

    def _ping_zygote(self) -> None:
        zygote, settings = self._zygote, self._settings
        if zygote is None or zygote.ended.done():
            return
        silent_s = zygote.ping() * PING_INTERVAL_S if zygote.is_ready else 0.0
        if silent_s >= settings.heartbeat_limit_s:
            zygote.why_killed = f"it had not answered for {silent_s:.0f} s"
        elif not zygote.is_ready and time.monotonic() - zygote.started_s >= settings.import_limit_s:
            zygote.why_killed = f"it had not imported the engine within import_limit_s {settings.import_limit_s:g}"
        else:
            return
        _log.error("killing the zygote (process %d): %s", zygote.pid, zygote.why_killed)
        zygote.kill()  # its end is reported as any other

    async def _wait_for_ranks(self, zygote: ZygoteClient) -> None:
        """Return when no rank of this pod is left. A zygote that does not manage is killed, and its ranks with it."""
        give_up_at_s = time.monotonic() + KILL_LIMIT_S
        while not all(rank.is_gone or _is_orphan_gone(zygote, rank) for rank in self._ranks.values()):
            if not zygote.ended.done() and time.monotonic() > give_up_at_s:
                _log.error("generation=%s ranks do not die; killing their zygote", self.generation)
                zygote.is_told = True
                zygote.kill()
                await zygote.ended
            self._gone.clear()
            limit_s = ORPHAN_POLL_S if zygote.ended.done() else give_up_at_s - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._gone.wait()

    def _on_event(self, event: Event) -> None:
        match event:
            case ZygoteReady():
                _log.info("the zygote stands by after %.1f s of imports", event.import_seconds)
                self._on_change()
            case RankForked() if event.generation == self.generation:
                self._ranks[event.rank].pid = event.pid
            case RankExited() if event.generation == self.generation:
                self._on_rank_exit(event)

    def _on_rank_exit(self, event: RankExited) -> None:
        rank = self._ranks[event.rank]
        rank.is_gone = True
        self._gone.set()
        view, pod = rank.slot.snapshot(), self._settings.pod_index
        said_why = view.phase == Phase.failed
        if event.by_us and not said_why:
            return
        last_word = event.message or (view.message if said_why else "")
        if event.by_us:
            cause = cut_short_cause(event.rank, pod, last_word)
        else:
            cause = rank_cause(event.rank, pod, event.ended, last_word)
        # Ranks that fail together are reaped in any order. Their last words tell which of them failed first.
        self._fail(cause, view.changed_ns * 1e-9 if said_why and cause.reason == "failed" else time.monotonic())

    def _note_end_of(self, zygote: ZygoteClient, ended: Exit) -> None:
        """Tell of a zygote's end, once. The task that keeps it may see it first, or the end of a generation."""
        if not zygote.is_told:
            zygote.is_told = True
            why = f": {zygote.why_killed}" if zygote.why_killed else ""
            self._fail(self._cause(None, f"the zygote (process {zygote.pid}) {ended}{why}", ended), time.monotonic())

    def _cause(self, rank: int | None, message: str, ended: Exit) -> Cause:
        return Cause(
            rank=rank,
            pod=self._settings.pod_index,
            reason="failed",
            exit_code=ended.code,
            signal=ended.signal,
            message=message,
        )

    def _fail(self, cause: Cause, at_s: float) -> None:
        failure = Failure(cause=cause, at_s=at_s)
        self._failures.append(failure)
        self._on_failure(self.generation, failure)


def _is_orphan_gone(zygote: ZygoteClient, rank: _Rank) -> bool:
    """Return whether a rank is gone of which its zygote will tell nothing any more."""
    return zygote.ended.done() and (rank.pid is None or process_state(rank.pid) == "")
