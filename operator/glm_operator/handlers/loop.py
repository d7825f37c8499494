"""The operator's own tasks: passes over what is due, watches, the poll of workers, and a beat that tells they turn."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from glm_operator.errors import Unavailable
from glm_operator.handlers.queue import Key, Queue, Urgency
from glm_operator.manifest import Manifest
from glm_operator.reconcile.reconciler import Outcome
from glm_operator.settings import OperatorSettings
from glm_operator.status.measured import Measured
from glm_operator.telemetry import Name, Telemetry, Watched

logger = logging.getLogger(__name__)

BEAT_S = 1.0
TURN_LIMIT_S = 90.0
"""An event loop that has not turned for so long hangs."""

SILENCE_LIMIT_S = 600.0
"""After this time in which no watch heard anything the process is given up, though it turns.

No restart helps an API server that is away. But what a new process does help, such as credentials or addresses read at
the start, looks the same from within. The count starts anew with the process: this makes no tight loop of restarts, and
nothing that serves depends on it.
"""

EDITS_FIRST_S = 1.0
"""Passes over hundreds of deployments keep a CPU busy for seconds: for so long they make way for an edit's."""

WAIT_S = 5.0
FIRST_LISTS_S = 20.0
"""Passes that nobody waits for begin when every watch has listed, or after this time: before that each would read all
that is live, for itself. A namespace that is closed to us is never listed."""

JITTER = 0.1
"""Resyncs are this much early or late, so that not all deployments are due at once."""

Reconcile = Callable[[str, str], Awaitable[Outcome]]
ListDeployments = Callable[[str | None], Awaitable[list[Manifest]]]
PollWorkers = Callable[[], Awaitable[Collection[Key]]]


class Watching(Watched, Protocol):
    """A watch as the loop sees it (glm_operator.cluster.watch.Watch)."""

    has_listed: asyncio.Event

    async def run(self) -> None: ...


class Loop:
    """Runs passes until it is cancelled. `is_alive`: it still does; ages: since it last got anywhere."""

    def __init__(
        self,
        settings: OperatorSettings,
        reconcile: Reconcile,
        deployments: ListDeployments,
        poll_workers: PollWorkers,
        watches: Sequence[Watching] = (),
        *,
        queue: Queue | None = None,
        beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
        measured: Callable[[], Mapping[Name, Measured]] = dict,
        statuses: Callable[[], Mapping[Name, Mapping[str, Any]]] = dict,
        certificates: Callable[[], Mapping[Name, datetime]] = dict,
    ) -> None:
        """beside: what else runs for as long as the loop. The last three: of all deployments, for the metrics."""
        self.queue = queue if queue is not None else Queue()  # an empty one is false
        self.telemetry = Telemetry(
            age_s=self.pass_age_s,
            queue_length=self.queue.__len__,
            watches=watches,
            measured=measured,
            statuses=statuses,
            gpu_budgets=settings.gpu_budgets,
            certificates=certificates,
        )
        self._beside = beside
        self._settings = settings
        self._reconcile = reconcile
        self._deployments = deployments
        self._poll_workers = poll_workers
        self._watches = watches
        self._unlisted: dict[str | None, str] = {}  # why a namespace could not be listed, while it cannot
        self._quiet: dict[Key, int] = {}  # unsettled passes in a row that changed nothing
        self._last_turn = self._last_list = self._last_pass = time.monotonic()

    def pass_age_s(self) -> float:
        """Return the seconds since a pass ended well or none was due while watches spoke; at first, since the start."""
        return time.monotonic() - self._last_pass

    def silence_s(self) -> float:
        """Return the seconds since any watch heard anything, or deployments were last listed."""
        ages = [watch.age_s() for watch in self._watches]
        return min([time.monotonic() - self._last_list, *ages])

    @property
    def is_alive(self) -> bool:
        return time.monotonic() - self._last_turn <= TURN_LIMIT_S and self.silence_s() <= SILENCE_LIMIT_S

    async def run(self) -> None:
        """Watch, poll and reconcile for ever. A task that ends takes the others, and so the process, with it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat(), name="beat")
            tasks.create_task(self._poll(), name="poll")
            for watch in self._watches:
                tasks.create_task(watch.run(), name=f"watch-{watch}")
            for run in self._beside:
                tasks.create_task(run())
            for number in range(self._settings.concurrency):
                # A quarter of them is for edits alone: passes of others may hang, on a webhook that does not answer.
                least = Urgency.EDIT if number < self._settings.concurrency // 4 else Urgency.RESYNC
                tasks.create_task(self._work(least), name=f"reconcile-{number}")

    async def wait_until_served(self) -> None:
        """Return once the API server knows GLMDeployments and lets us see some: kopf looks for its kinds only once."""
        while True:
            if await self.list_once():
                return
            await asyncio.sleep(WAIT_S)

    async def list_once(self) -> bool:
        """Make every deployment due that can be listed; return whether there was any list.

        A namespace that is gone, or closed to us, holds up none of the others.
        """
        namespaces = self._settings.namespaces or (None,)
        listed = await asyncio.gather(*(self._list_namespace(namespace) for namespace in namespaces))
        self._last_turn = time.monotonic()
        if any(listed):
            self._last_list = self._last_turn
        return any(listed)

    async def _list_namespace(self, namespace: str | None) -> bool:
        try:
            bodies = await self._deployments(namespace)
        except Unavailable as error:
            if self._unlisted.get(namespace) != str(error):
                logger.warning("list of %s: %s", namespace or "the cluster", error)
            self._unlisted[namespace] = str(error)
            return False
        if self._unlisted.pop(namespace, None) is not None:
            logger.info("list of %s: it can be listed again", namespace or "the cluster")
        for body in bodies:
            was_edited = body["metadata"].get("generation") != (body.get("status") or {}).get("observedGeneration")
            urgency = Urgency.EDIT if was_edited else Urgency.RESYNC
            self.queue.add(Key(body["metadata"]["namespace"], body["metadata"]["name"]), urgency)
        return True

    async def pass_once(self, key: Key) -> None:
        """Run one pass and put the deployment back where it belongs."""
        started = time.monotonic()
        outcome = "error"
        try:
            async with asyncio.timeout(self._settings.pass_limit_s):
                result = await self._reconcile(key.namespace, key.name)
            outcome = "gone" if not result.exists else "changed" if result.changed else "unchanged"
            self._finish(key, result)
            self._last_pass = time.monotonic()
        except (Unavailable, TimeoutError) as error:
            outcome = "unavailable"
            delay_s = self.queue.retry(key)
            reason = str(error) or f"the pass took more than {self._settings.pass_limit_s:.0f} s"
            logger.warning("%s: %s; next try in %.1f s", key, reason, delay_s)
        except Exception:  # the outermost loop: a fault in one deployment must not stop the others
            delay_s = self.queue.retry(key)
            logger.exception("%s: the pass failed; next try in %.1f s", key, delay_s)
        finally:
            self.telemetry.passed(outcome, time.monotonic() - started)

    def _finish(self, key: Key, result: Outcome) -> None:
        if not result.exists:
            self._quiet.pop(key, None)
            self.queue.forget(key)
            return
        self.queue.done(key)
        resync_s = self._settings.resync_s
        if result.settled:
            self._quiet.pop(key, None)
            delay_s = resync_s * (1 + JITTER * random.uniform(-1, 1))  # noqa: S311
            urgency = Urgency.RESYNC
        else:
            # Loading shows up in no event, so it is asked for; what stands still is asked for ever more rarely.
            quiet = 0 if result.changed else self._quiet.get(key, 0) + 1
            self._quiet[key] = quiet
            slowest_s = min(resync_s, self._settings.unsettled_resync_s)
            delay_s = min(self._settings.starting_resync_s * 2.0 ** min(quiet, 16), slowest_s)
            delay_s *= 1 + JITTER * random.uniform(-1, 1)  # noqa: S311
            urgency = Urgency.EVENT
        if result.due_at is not None:
            delay_s = min(delay_s, max(0.0, (result.due_at - datetime.now(UTC)).total_seconds()) + 0.1)
        self.queue.add_later(key, delay_s, urgency)

    async def _work(self, least: Urgency) -> None:
        if least is not Urgency.EDIT:
            await self._first_lists()
        while True:
            if least is not Urgency.EDIT:
                await self._let_edits_go_first()
            await self.pass_once(await self.queue.take(least))

    async def _let_edits_go_first(self) -> None:
        """Leave the CPU to passes that somebody waits for, but not for long: one of them may hang."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EDITS_FIRST_S):
                await self.queue.without_edits()

    async def _first_lists(self) -> None:
        listed = [asyncio.create_task(watch.has_listed.wait()) for watch in self._watches]
        if listed:
            _, late = await asyncio.wait(listed, timeout=FIRST_LISTS_S)
            for task in late:
                task.cancel()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_s)
            for key in await self._poll_workers():
                self.queue.add(key)

    async def _beat(self) -> None:
        """Note that the event loop turns; and that all is well where watches speak and nothing is due."""
        while True:
            self._last_turn = time.monotonic()
            if not len(self.queue) and self.silence_s() < TURN_LIMIT_S:
                self._last_pass = self._last_turn
            await asyncio.sleep(BEAT_S)
