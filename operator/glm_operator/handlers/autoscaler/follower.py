"""One deployment, looked at again and again: read, decide, scale, and keep what the next look needs.

Level-triggered as a pass: each look decides on what is there now. If the process dies between any two lines, the next
operator's first look goes on; only timers begin anew, which scales down later, never sooner.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, Protocol

from glm_operator.api.reasons import Reason
from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Decision
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.signals import Signals
from glm_operator.autoscale.zero.asked import Asked
from glm_operator.cluster.metrics.reading import Reading, Target
from glm_operator.errors import Conflict, Denied, KubeError, Rejected
from glm_operator.handlers.autoscaler.situation import Floors, gpus_per_group, serving, situation, targets
from glm_operator.handlers.autoscaler.steady import Kept, Steady
from glm_operator.handlers.autoscaler.tally import Tally
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import ObservedGroup, Seen
from glm_operator.observe.report import GroupReport
from glm_operator.reconcile.promises import Promises, lack, promises
from glm_operator.status.measured import Change, Measured, overall

logger = logging.getLogger(__name__)

REFUSED_S = (30.0, 60.0, 120.0, 300.0)
"""Pauses after a write that the API server refused: nobody but a person changes that."""

SCRAPED_AFTER_S = 60.0
"""A group that serves for longer should have been scraped once."""

UNSEEN = Trouble(
    "metrics",
    "WatchSilent",
    "what runs is not known: a watch of the API server heard nothing for too long, and there is no new list yet",
)
"""What is said while the watches may not know all of a deployment."""

Name = tuple[str, str]  # namespace, name


class Scales(Protocol):
    """What a look needs of the API server (glm_operator.cluster.kube.Kube)."""

    async def scale(self, body: Manifest, groups: int) -> str: ...
    async def post_events(self, body: Manifest, events: Iterable[Trouble], now: datetime) -> None: ...


class Reads(Protocol):
    """Where numbers come from (glm_operator.cluster.metrics.sources.Sources)."""

    async def read(
        self,
        namespace: str,
        deployment: str,
        targets: Sequence[Target],
        slo: Slo,
        on_missing: Literal["Fallback", "Hold"] = "Fallback",
    ) -> Reading: ...

    def forget(self, namespace: str, deployment: str) -> None: ...


class Hears(Protocol):
    """What workers said last (glm_operator.cluster.workers.Workers)."""

    async def reports(self, groups: Iterable[ObservedGroup], ask: Collection[str]) -> dict[str, GroupReport]: ...


class Follower:
    """The looks at one deployment."""

    def __init__(
        self,
        name: Name,
        uid: str,
        *,
        kube: Scales,
        sources: Reads,
        workers: Hears,
        seen: Callable[[], Seen | None],
        namespace_gpus_left: Callable[[], int | None],
        period_s: float,
        asked: Callable[[], Asked] = Asked,
    ) -> None:
        """seen: the deployment as the watches know it. namespace_gpus_left: of the namespace's budget, for this one.

        asked: what its gateways say now; where there may be no group, none of them is none that would hold a request.
        """
        self._name = name
        self._uid = uid
        self._kube = kube
        self._sources = sources
        self._workers = workers
        self._seen = seen
        self._namespace_gpus_left = namespace_gpus_left
        self._asked = asked
        self._memory = Memory()
        self._last: Measured | None = None
        self._metrics = Steady(bad_after_s=1.5 * period_s, good_after_s=2.5 * period_s)
        self._kept = Kept(good_after_s=12 * period_s)
        self._tally = Tally()
        self._gpus: tuple[object, int] = (None, 0)  # of which generation
        self._floors = Floors()
        self._groups: int | None = None  # spec.replicas at the last look
        self._unanswered: Decision | None = None  # a write of which it is not known whether it was done
        self._written: tuple[int, int] | None = None  # our last write: its version, and how many groups
        self._refused: Trouble | None = None
        self._refusals = 0
        self._retry_at_s = 0.0
        self._unheard: frozenset[str] = frozenset()  # groups that serve, were asked how they are, and were not heard
        self.reserved = 0  # groups that are wanted by a write that is on its way, or that no watch told of yet

    async def look(self, now_s: Callable[[], float]) -> Measured | None:
        """Look once; return what came of it, None where the watches do not know the deployment."""
        before = self._seen()
        if before is None or not self._is_ours(before.body):
            return None
        promised = promises(before.body)
        # Groups that finish are not waited for: who asks where there is none wants one at once.
        asked = [] if _is_at_zero(promised, self._groups_of(before.body)) else targets(before.observed)
        reading = await self._read(asked, promised) if asked else None
        seen = self._seen()  # reading takes seconds at times; what is decided and written is about now
        if seen is None or not self._is_ours(seen.body):
            return None
        promised, at_s = promises(seen.body), now_s()
        groups = self._groups_of(seen.body)
        await self._tell_of_others(seen.body, groups, promised.scaling, at_s)
        expected = serving(before.observed) & serving(seen.observed)
        scaling, slo = promised.scaling, promised.slo or Slo()
        reports = await self._heard(seen.observed.groups.values(), expected)
        older = _older(reports, expected)
        series, latencies = (reading.series, reading.latencies) if reading is not None and not older else ((), None)
        warm_up_s = scaling.warm_up_seconds if scaling is not None else 0
        signals = replace(read(series, latencies, slo, expected, at_s, warm_up_s), asked=self._asked())
        metrics = self._metrics.of(_judged(seen, reading, signals, expected, older, at_s), at_s)
        gpus = self._gpus_per_group(seen.body)
        around = situation(seen, groups, gpus, self._namespace_gpus_left(), self._floors.of(seen))
        decision = None
        if scaling is not None and scaling.mode in ("Active", "Observe") and (groups > 0 or scaling.may_be_zero):
            decision, self._memory = decide(scaling, slo, around, signals, self._memory, at_s)
            if scaling.mode == "Observe":
                self._tally.observe(decision, at_s)
            elif decision.desired != groups:
                await self._scale(seen.body, decision, at_s)
            self._tally.count(decision, at_s)
        self._last = Measured(
            at_s=at_s,
            uid=self._uid,
            mode=scaling.mode if scaling is not None else "Disabled",
            metrics=metrics,
            source=reading.source if reading is not None and series else None,
            latency=overall(latencies, at_s),
            classes=signals.classes,
            met=self._kept.of(slo, signals.classes, at_s),
            decision=decision,
            refused=self._refused,
            changes=self._tally.changes,
            sampled_at_s=signals.at_s,
            situation=around,
            static_groups=max(self._tally.peak(at_s), groups if decision is None else 0),
            decided=self._tally.decided,
            unpromised=_unpromised(seen, reports, expected, promised),
        )
        return self._last

    def unseen(self, at_s: float) -> Measured | None:
        """Return the last look, with the word that nothing is decided for want of watches; None: there was no look."""
        if self._last is None:
            return None
        said = self._metrics.of(UNSEEN, at_s)
        source = self._last.source if said is not UNSEEN else None
        return replace(self._last, at_s=at_s, metrics=said, source=source)

    def _is_ours(self, body: Manifest) -> bool:
        """Whether it is the deployment that is followed, and stays."""
        return body["metadata"].get("uid") == self._uid and "deletionTimestamp" not in body["metadata"]

    @property
    def is_at_zero(self) -> bool:
        """Whether there was no group at the last look, or is none since what was written then."""
        return self._groups == 0

    def is_awaited(self) -> bool:
        """Whether a gateway holds requests, and there was no group at the last look."""
        return self.is_at_zero and self._asked().held > 0.0

    def forget(self) -> None:
        """Let go of what others keep of the deployment."""
        self._sources.forget(*self._name)

    async def _heard(self, groups: Collection[ObservedGroup], expected: frozenset[str]) -> dict[str, GroupReport]:
        """Return what workers said. Who serves and was not heard is asked, once: the next poll may be half a minute
        away, and until then workers of an older version would pass for those that measure everything."""
        reports = await self._workers.reports(groups, ())
        silent = expected - reports.keys()
        ask, self._unheard = silent - self._unheard, silent
        return await self._workers.reports(groups, ask) if ask else reports

    async def _read(self, asked: Sequence[Target], promised: Promises) -> Reading:
        on_missing = promised.scaling.on_missing_metrics if promised.scaling is not None else "Fallback"
        return await self._sources.read(*self._name, asked, promised.slo or Slo(), on_missing)

    def _groups_of(self, body: Manifest) -> int:
        """Return spec.replicas, or what we have written since: a watch may be behind."""
        if self._written is not None and _version(body) < self._written[0]:
            return self._written[1]
        self._written = None
        self.reserved = 0
        return int((body.get("spec") or {}).get("replicas", 1))

    async def _tell_of_others(self, body: Manifest, groups: int, scaling: Scaling | None, at_s: float) -> None:
        """Note that somebody else has set the number of groups. The law starts its timers anew by itself."""
        before, self._groups = self._groups, groups
        if before is None or before == groups or scaling is None or scaling.mode != "Active":
            return
        ours, self._unanswered = self._unanswered, None
        if ours is not None and (ours.current, ours.desired) == (before, groups):
            await self._tell_scale(body, ours, at_s)
            return
        message = f"somebody else set spec.replicas from {before} to {groups}"
        change = Change(at_s=at_s, before=before, after=groups, reason="ScaledByHand", message=message, is_done=False)
        self._tally.add(change)
        await self._tell(body, "ScaledByHand", message, at_s)

    def _gpus_per_group(self, body: Manifest) -> int:
        generation = body["metadata"].get("uid"), body["metadata"].get("generation")
        if self._gpus[0] != generation:
            self._gpus = generation, gpus_per_group(body)
        return self._gpus[1]

    async def _scale(self, body: Manifest, decision: Decision, at_s: float) -> None:
        """Set spec.replicas to what was decided. What failed is decided anew at the next look."""
        if at_s < self._retry_at_s:
            return
        namespace, name = self._name
        self.reserved = decision.desired
        self._unanswered = decision
        try:
            version = await self._kube.scale(body, decision.desired)
        except Conflict as error:  # it has changed since we looked, maybe by a person: look again
            self._unanswered = None
            logger.info("deployment=%s/%s is not scaled, it has changed: %s", namespace, name, error)
        except (Denied, Rejected) as error:
            self._unanswered = None
            await self._note_refusal(body, str(error), at_s)
        except KubeError as error:
            logger.warning("deployment=%s/%s is not scaled: %s", namespace, name, error)
        else:
            await self._note_scale(body, decision, version, at_s)
            return
        self.reserved = 0

    async def _note_scale(self, body: Manifest, decision: Decision, version: str, at_s: float) -> None:
        self._unanswered, self._refused, self._refusals = None, None, 0
        self._memory = self._memory.noted(decision.desired)
        self._groups = decision.desired
        self._written = int(version) if version.isdecimal() else 0, decision.desired
        await self._tell_scale(body, decision, at_s)

    async def _tell_scale(self, body: Manifest, decision: Decision, at_s: float) -> None:
        change = self._tally.scale(decision, at_s)
        reason: Reason = "ScaledUp" if change.after > change.before else "ScaledDown"
        if decision.cause == "Woken":
            reason = "Woken"
        await self._tell(body, reason, f"{change.before} -> {change.after} groups: {change.message}", at_s)

    async def _note_refusal(self, body: Manifest, message: str, at_s: float) -> None:
        is_news = self._refused is None
        self._refused = Trouble("scale", "ScaleRefused", message)
        self._retry_at_s = at_s + REFUSED_S[min(self._refusals, len(REFUSED_S) - 1)]
        self._refusals += 1
        if is_news:
            await self._tell(body, "ScaleRefused", message, at_s)

    async def _tell(self, body: Manifest, reason: Reason, message: str, at_s: float) -> None:
        namespace, name = self._name
        logger.info("deployment=%s/%s %s: %s", namespace, name, reason, message)
        told = Trouble("scale", reason, message)
        await self._kube.post_events(body, [told], datetime.fromtimestamp(at_s, UTC))


def _is_at_zero(promised: Promises, groups: int) -> bool:
    """Whether there is no group, and may be none."""
    return groups == 0 and promised.scaling is not None and promised.scaling.may_be_zero


def _older(reports: Mapping[str, GroupReport], expected: frozenset[str]) -> list[str]:
    """Return the groups that serve and whose workers measure less than a decision needs: what lacks is no zero."""
    return sorted(name for name in expected if name in reports and not reports[name].takes_slo)


def _unpromised(
    seen: Seen, reports: Mapping[str, GroupReport], expected: frozenset[str], promised: Promises
) -> frozenset[str]:
    """Return the groups that serve and measure by other promises than these, whether they refuse them or cannot."""
    others = {group.name for group in lack(seen.observed, reports, promised)}
    has_classes = promised.slo is not None and bool(promised.slo.classes)
    return expected & (others | {*(_older(reports, expected) if has_classes else ())})


def _judged(
    seen: Seen,
    reading: Reading | None,
    signals: Signals,
    expected: frozenset[str],
    older: list[str],
    at_s: float,
) -> Trouble:
    """Return what to say of the metrics as they are now."""
    if older:
        whose = ", ".join(older[:20])
        message = f"{whose}: the worker image is of an older version, which does not measure what scaling needs"
        return Trouble("metrics", "OlderWorkers", message)
    trouble = reading.trouble if reading is not None else None
    if reading is None or (not expected and (trouble is None or trouble.reason == "MetricsMissing")):
        return Trouble("metrics", "MetricsMissing", "no group serves yet")
    stale = {name: at_s - signals.groups[name].at_s for name in sorted(signals.stale & expected)}
    return _metrics_of(reading, _unseen(seen, signals, expected, at_s), stale)


def _metrics_of(reading: Reading, unseen: list[str], stale: Mapping[str, float]) -> Trouble:
    """Return what to say of the metrics as they are now.

    unseen: groups that serve, and of which there is no series. stale: the age in seconds of the samples that are not
    fresh, by group; below 0 where they lie in the future.
    """
    trouble = reading.trouble
    has_numbers = bool(reading.series)
    if trouble is not None and has_numbers:
        message = f"{trouble.message}; the operator asks the workers itself"
        return Trouble("metrics", "NoSeries" if trouble.reason == "NoSeries" else "MetricsFallback", message)
    if trouble is not None:
        return trouble
    if unseen:
        return Trouble("metrics", "NoSeries", f"{reading.source}: no series of {', '.join(unseen[:20])}, which serve")
    if stale:
        whose, youngest_s = ", ".join(list(stale)[:20]), min(stale.values())
        what = f"{-youngest_s:.0f} s ahead of the operator's clock; set the clocks" if youngest_s < 0.0 else "too old"
        return Trouble("metrics", "MetricsStale", f"{reading.source}: samples of {whose} are {what}")
    where = "Prometheus" if reading.source == "Prometheus" else "the workers"
    return Trouble("metrics", "MetricsRead", f"read from {where}")


def _unseen(seen: Seen, signals: Signals, expected: frozenset[str], at_s: float) -> list[str]:
    """Return the groups that have served for a while and have no series."""
    since = {
        group.name: max((pod.ready_changed_at.timestamp() for pod in group.pods if pod.ready_changed_at), default=0.0)
        for group in seen.observed.groups.values()
    }
    return sorted(name for name in expected - signals.groups.keys() if at_s - since.get(name, 0.0) > SCRAPED_AFTER_S)


def _version(body: Manifest) -> int:
    text: Mapping[str, str] = body["metadata"]
    version = text.get("resourceVersion") or "0"
    return int(version) if version.isdecimal() else 0


def full_name(body: Manifest) -> Name:
    """Return the namespace and name of a deployment."""
    return body["metadata"]["namespace"], name_of(body)
