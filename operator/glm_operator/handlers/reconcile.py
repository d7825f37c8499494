"""One pass over one GLMDeployment: parse, observe, plan, render, apply, status.

Level-triggered: looks at what exists now, never at which event woke it, so running it twice is harmless. Its only
writes are server-side apply, delete, the status and Events; if it dies between any two, the next pass goes on.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from glm_operator import records
from glm_operator.api import InvalidSpec, parse_deployment
from glm_operator.conditions import Facts, Refused, Transition, summarize, transitions
from glm_operator.errors import Conflict, Denied, ForeignObject, LeftOver, Rejected, Unavailable, Vanishing
from glm_operator.manifest import Manifest, name_of
from glm_operator.observed import Blocked, Observed, ObservedGroup
from glm_operator.planner import Layout, plan
from glm_operator.render import render_shared, stateful_set
from glm_operator.report import GroupReport
from glm_operator.rollout import GroupStep, Rollout, Target, foresee, plan_rollout, repair
from glm_operator.status import Reason

logger = logging.getLogger(__name__)


class Cluster(Protocol):
    """What a pass needs of the API server (glm_operator.kube.Kube)."""

    async def deployment(self, namespace: str, name: str) -> Manifest | None: ...
    async def observe(self, body: Manifest) -> Observed: ...
    async def apply(
        self, manifest: Manifest, owner: Manifest, observed: Observed, *, dry_run: bool = False
    ) -> bool: ...
    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None: ...
    async def patch_status(self, body: Manifest, status: Mapping[str, Any]) -> bool: ...
    async def post_events(self, body: Manifest, transitions: Iterable[Transition], now: datetime) -> None: ...


class Leaders(Protocol):
    """What a pass needs of the workers (glm_operator.workers.Workers)."""

    async def reports(self, groups: Iterable[ObservedGroup]) -> dict[str, GroupReport]: ...


@dataclass(frozen=True)
class Outcome:
    """What a pass came to."""

    exists: bool = True
    changed: bool = False
    settled: bool = True  # False: look again soon, something is on its way that no event will tell of


@dataclass(frozen=True)
class Reconciler:
    """A pass, with the neighbours it needs."""

    kube: Cluster
    workers: Leaders
    default_image: str
    now: Callable[[], datetime]

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """Move one GLMDeployment a single safe step towards its spec. Raises Unavailable: try again."""
        body = await self.kube.deployment(namespace, name)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return Outcome(exists=False)  # ownerReferences delete everything
        try:
            return await self._reconcile(body)
        except Vanishing as error:
            # The namespace goes, or the deployment went since we looked; if not, the next pass finds out.
            logger.info("%s/%s: %s", namespace, name, error)
            return Outcome(settled=False)

    async def _reconcile(self, body: Manifest) -> Outcome:
        observed = await self.kube.observe(body)
        target, refused = await self._decide(body, observed)
        if target is not None:
            rollout = plan_rollout(target, observed)
            steps = rollout.steps
        else:
            rollout, steps = None, repair(observed)
        act = await self._act(body, target, steps, observed)
        changed = act.changed
        facts = Facts(
            name=name_of(body),
            namespace=body["metadata"]["namespace"],
            generation=body["metadata"].get("generation", 0),
            target=target,
            refused=refused,
            rollout=rollout,
            observed=foresee(observed, act.done, target),
            reports=await self.workers.reports(observed.groups.values()),
            blocked=tuple(act.blocked),
            previous=body.get("status") or {},
        )
        status = summarize(facts, self.now())
        if await self.kube.patch_status(body, status):
            changed = True
            told = transitions(facts.previous, status)
            for transition in told:
                logger.info(
                    "deployment=%s/%s %s: %s", facts.namespace, facts.name, transition.reason, transition.message
                )
            await self.kube.post_events(body, told, self.now())
        return Outcome(changed=changed, settled=not changed and _is_settled(facts, rollout))

    async def _decide(self, body: Manifest, observed: Observed) -> tuple[Target | None, Refused | None]:
        """Return where the groups go: to the newest spec, or, where that cannot be, to the last accepted one."""
        newest = self._newest(body)
        refused = await self._try(body, newest, observed) if isinstance(newest, Target) else newest
        if isinstance(newest, Target) and refused is None:
            return newest, None
        return records.restore(body, observed), refused

    def _newest(self, body: Manifest) -> Target | Refused:
        """Return where the newest spec would have the groups go, or why it cannot be."""
        try:
            deployment = parse_deployment(body, default_image=self.default_image)
        except InvalidSpec as error:
            return Refused("InvalidSpec", str(error))
        layout = plan(deployment)
        if isinstance(layout, Layout):
            return Target.of(deployment, layout)
        return Refused("LayoutRefused", layout.message)

    async def _try(self, body: Manifest, newest: Target, observed: Observed) -> Refused | None:
        """Ask the API server whether it would take the pods of a spec not accepted yet; return why not.

        Only it knows every rule of a pod, and the policies of its cluster. What it refuses must not become the record
        that running groups are repaired from.
        """
        last = records.latest(observed.records)
        if last is not None and last.name == records.name_of_spec(newest.deployment):
            return None
        try:
            await self.kube.apply(stateful_set(newest.deployment, newest.layout, 0), body, observed, dry_run=True)
        except (ForeignObject, LeftOver):
            return None  # the spec is not to blame; told when it is applied
        except Rejected as error:
            return Refused("ApplyRefused", str(error))
        except Conflict:
            raise
        except Unavailable as error:
            # With nothing to fall back to, everything else is made, and the one write that fails is told as blocked.
            return Refused(_reason(error), str(error)) if last is not None else None
        return None

    async def _act(
        self, body: Manifest, target: Target | None, steps: Iterable[GroupStep], observed: Observed
    ) -> "_Act":
        """Take one step of everything; return what was written, and what could not be."""
        act = _Act(self.kube, body, observed)
        if target is not None:
            # The record comes first: what groups are moved to must be known to whoever continues.
            record = records.record(target, observed.records)
            await act.apply(record)
            for manifest in render_shared(target.deployment):
                await act.apply(manifest)
        for step in steps:
            await act.take(step, target)
        if target is not None:
            for name in records.surplus(observed, name_of(record)):
                live = observed.live["apps/v1", "ControllerRevision", name]
                await act.delete("ControllerRevision", name, live["metadata"]["uid"])
        return act


class _Act:
    """The writes of one pass. One object that cannot be written does not keep the others from it."""

    def __init__(self, kube: Cluster, body: Manifest, observed: Observed) -> None:
        self._kube = kube
        self._body = body
        self._observed = observed
        self.changed = False
        self.blocked: list[Blocked] = []
        self.done: list[GroupStep] = []  # of the steps, what was carried out

    async def apply(self, manifest: Manifest) -> bool:
        """Apply one object; return whether it is now as it should be."""
        try:
            if await self._kube.apply(manifest, self._body, self._observed):
                self._log("applied", manifest["kind"], name_of(manifest))
        except ForeignObject as error:
            self.blocked.append(Blocked(name_of(manifest), "NameConflict", str(error)))
        except LeftOver as error:
            self.blocked.append(Blocked(name_of(manifest), "GroupsPending", str(error)))
        except Rejected as error:
            self.blocked.append(Blocked(name_of(manifest), "ApplyRefused", str(error)))
        except Conflict:
            raise  # it has changed since we looked: so may everything else
        except Unavailable as error:
            self.blocked.append(Blocked(name_of(manifest), _reason(error), str(error)))
        else:
            return True
        return False

    async def take(self, step: GroupStep, target: Target | None) -> None:
        """Apply or delete one group's StatefulSet, then delete its pods that have to go."""
        if step.render and target is not None:
            if not await self.apply(stateful_set(target.deployment, target.layout, step.index)):
                return  # its pods stay until its template is what it should be
        elif step.delete:
            live = self._observed.live["apps/v1", "StatefulSet", step.name]
            if not await self.delete("StatefulSet", step.name, live["metadata"]["uid"]):
                return
        deleted = [pod for pod in step.delete_pods if await self.delete("Pod", pod.name, pod.uid)]
        self.done.append(replace(step, delete_pods=tuple(deleted)))

    async def delete(self, kind: str, name: str, uid: str) -> bool:
        """Delete one object; return whether it is gone or going."""
        try:
            await self._kube.delete(kind, self._body["metadata"]["namespace"], name, uid)
        except Unavailable as error:
            self.blocked.append(Blocked(name, _reason(error), str(error)))
            return False
        self._log("deleted", kind, name)
        return True

    def _log(self, done: str, kind: str, name: str) -> None:
        self.changed = True
        metadata = self._body["metadata"]
        logger.info("deployment=%s/%s %s %s %s", metadata["namespace"], metadata["name"], done, kind, name)


def _reason(error: Unavailable) -> Reason:
    return "WriteDenied" if isinstance(error, Denied) else "WriteFailed"


def _is_settled(facts: Facts, rollout: Rollout | None) -> bool:
    """Tell whether nothing is on its way: what is still to come would show up in no event of the cluster."""
    if facts.blocked or (facts.refused is not None and facts.refused.reason in ("WriteDenied", "WriteFailed")):
        return False
    if rollout is not None and (rollout.outdated or rollout.surplus):
        return False
    groups = facts.observed.groups
    return all(index in groups and groups[index].is_available for index in range(facts.wanted))
