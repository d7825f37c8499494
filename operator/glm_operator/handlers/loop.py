"""The operator's own tasks: passes over what is due, and the resync that makes everything due now and then."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from glm_operator.errors import Unavailable
from glm_operator.handlers.queue import Key, Queue
from glm_operator.manifest import Manifest
from glm_operator.reconcile.reconciler import Outcome
from glm_operator.settings import OperatorSettings
from glm_operator.telemetry import Telemetry

logger = logging.getLogger(__name__)

TURN_LIMIT_RESYNCS = 3
"""A resync that has not ended after this many periods, well or not, hangs."""

LIST_LIMIT_RESYNCS = 20
"""After this many periods without any list (10 minutes) the process is given up, though it turns.

No restart mends an API server that is away. But what a new process does mend, such as credentials or addresses read at
the start, looks the same from within. The count starts anew with the process: this makes no tight loop of restarts, and
nothing that serves depends on it.
"""

WAIT_S = 5.0

Reconcile = Callable[[str, str], Awaitable[Outcome]]
ListDeployments = Callable[[str | None], Awaitable[list[Manifest]]]


class Loop:
    """Runs passes until it is cancelled. `is_alive`: it still does; ages: since it last got anywhere."""

    def __init__(self, settings: OperatorSettings, reconcile: Reconcile, deployments: ListDeployments) -> None:
        self.queue = Queue()
        self.telemetry = Telemetry(age_s=self.pass_age_s, queue_length=self.queue.__len__)
        self._settings = settings
        self._reconcile = reconcile
        self._deployments = deployments
        self._unlisted: dict[str | None, str] = {}  # why a namespace could not be listed, while it cannot
        self._quiet: dict[Key, int] = {}  # unsettled passes in a row that changed nothing
        self._last_turn = self._last_list = self._last_pass = time.monotonic()

    def pass_age_s(self) -> float:
        """Return the seconds since a pass ended well or a resync found nothing to do; since the start, if none has."""
        return time.monotonic() - self._last_pass

    def list_age_s(self) -> float:
        """Return the seconds since a resync last listed deployments; since the start, if none has."""
        return time.monotonic() - self._last_list

    @property
    def is_alive(self) -> bool:
        period_s, turn_age_s = self._settings.resync_s, time.monotonic() - self._last_turn
        return turn_age_s <= TURN_LIMIT_RESYNCS * period_s and self.list_age_s() <= LIST_LIMIT_RESYNCS * period_s

    async def run(self) -> None:
        """Resync and reconcile for ever. A task that ends takes the others, and so the process, with it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._resync(), name="resync")
            for number in range(self._settings.concurrency):
                tasks.create_task(self._work(), name=f"reconcile-{number}")

    async def wait_until_served(self) -> None:
        """Return once the API server knows GLMDeployments and lets us see some: kopf looks for its kinds only once."""
        while True:
            if await self.resync_once():
                return
            await asyncio.sleep(WAIT_S)

    async def resync_once(self) -> bool:
        """Make every deployment due that can be listed; return whether there was any list.

        A namespace that is gone, or closed to us, holds up none of the others.
        """
        namespaces = self._settings.namespaces or (None,)
        found = await asyncio.gather(*(self._resync_namespace(namespace) for namespace in namespaces))
        listed = [num_due for num_due in found if num_due is not None]
        self._last_turn = time.monotonic()
        if listed:
            self._last_list = self._last_turn
            if not any(listed):
                self._last_pass = self._last_turn
        return bool(listed)

    async def _resync_namespace(self, namespace: str | None) -> int | None:
        """Make the deployments of a namespace due and return their number; None if they cannot be listed."""
        try:
            bodies = await self._deployments(namespace)
        except Unavailable as error:
            if self._unlisted.get(namespace) != str(error):
                logger.warning("resync of %s: %s", namespace or "the cluster", error)
            self._unlisted[namespace] = str(error)
            return None
        if self._unlisted.pop(namespace, None) is not None:
            logger.info("resync of %s: it can be listed again", namespace or "the cluster")
        for body in bodies:
            self.queue.add(Key(body["metadata"]["namespace"], body["metadata"]["name"]))
        return len(bodies)

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
        if result.settled:
            self._quiet.pop(key, None)
            return
        # Loading shows up in no event, so it is asked for; what stands still is asked for ever more rarely.
        quiet = 0 if result.changed else self._quiet.get(key, 0) + 1
        self._quiet[key] = quiet
        delay_s = self._settings.starting_resync_s * 2.0 ** min(quiet, 16)
        if delay_s < self._settings.resync_s:
            self.queue.add_later(key, delay_s)

    async def _work(self) -> None:
        while True:
            await self.pass_once(await self.queue.take())

    async def _resync(self) -> None:
        while True:
            await self.resync_once()
            await asyncio.sleep(self._settings.resync_s)
