"""The writes of one pass, one by one, and what became of each."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from glm_operator import names
from glm_operator.api.trouble import Trouble, trouble_of
from glm_operator.errors import Conflict, KubeError, LeftOver, Rejected, Vanishing
from glm_operator.manifest import Manifest, is_applied, kind_of, name_of
from glm_operator.observe.gateway import GatewayPod
from glm_operator.observe.observed import Observed
from glm_operator.observe.ownership import check_ownership, owned
from glm_operator.reconcile.ports import Cluster
from glm_operator.render import render_shared
from glm_operator.rollout import records
from glm_operator.rollout.front import FrontPlan
from glm_operator.rollout.steps import Decision, GroupStep, repair
from glm_operator.rollout.target import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Everything a pass would write, in order."""

    record: Manifest | None  # first: what groups are moved to must be known to whoever continues
    shared: tuple[Manifest, ...]
    front: FrontPlan
    steps: tuple[GroupStep, ...]
    forget: tuple[str, ...]  # records

    def is_done(self, body: Manifest, observed: Observed) -> bool:
        """Tell whether nothing of it is left to write."""
        manifests = [self.record, *self.shared, *self.front.manifests, *(step.manifest for step in self.steps)]
        return (
            not self.forget
            and not self.front.pokes
            and not any(step.takes_away for step in self.steps)
            and all(_is_there(manifest, body, observed) for manifest in manifests if manifest is not None)
        )


def plan_of(
    body: Manifest, observed: Observed, target: Target | None, decision: Decision | None, front: FrontPlan
) -> Plan:
    """Return what a pass writes. What groups share is repaired also where no spec of theirs can be read."""
    steps = decision.steps if decision is not None else repair(observed)
    is_complete = decision is not None and decision.is_complete
    namespace, has_any = body["metadata"]["namespace"], target is not None or observed.has_groups
    record = records.record(target, observed, is_complete=is_complete) if target is not None else None
    return Plan(
        record=record,
        shared=tuple(render_shared(name_of(body), namespace, front.selector)) if has_any else (),
        front=front,
        steps=steps,
        forget=tuple(records.surplus(observed, name_of(record))) if record is not None else (),
    )


def _is_there(manifest: Manifest, body: Manifest, observed: Observed) -> bool:
    return is_applied(owned(manifest, body), observed.live.get((*kind_of(manifest), name_of(manifest))))


def foreign_troubles(body: Manifest, observed: Observed) -> list[Trouble]:
    """Return the StatefulSets of others that have the name of a group: their pods are behind our Service."""
    found = []
    for name, foreign in observed.foreign.items():
        try:
            check_ownership(foreign, body)
        except LeftOver:
            continue  # about to be collected
        except KubeError as error:
            found.append(trouble_of(name, error))
    return found


class Writes:
    """The writes of one pass. One object that cannot be written does not keep the others from it."""

    def __init__(self, kube: Cluster, body: Manifest, observed: Observed) -> None:
        self._kube = kube
        self._body = body
        self._observed = observed
        self.changed = False
        self.recorded = False  # a record was written: the spec, its rendering or the number of groups is another
        self.blocked: list[Trouble] = []
        self.done: list[GroupStep] = []  # of the steps, what was carried out

    async def write(self, plan: Plan) -> None:
        """Write all of it. Without its record no group moves, unless it is a first spec: nothing is lost by that."""
        may_move = plan.record is None or await self._record(plan.record)
        for manifest in (*plan.shared, *plan.front.manifests):
            await self._apply(manifest)
        for pod in plan.front.pokes:
            await self._poke(pod, plan.front.digest)
        if may_move:
            for step in plan.steps:
                await self._take(step)
        for name in plan.forget:
            await self._forget(name)

    def refused(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that could not be written."""
        return {trouble.about for trouble in self.blocked} & {*names}

    async def _record(self, manifest: Manifest) -> bool:
        """Write down what groups are moved to; return whether they may be."""
        changed, self.changed = self.changed, False
        is_written = await self._apply(manifest)
        self.recorded, self.changed = self.changed, self.changed or changed
        last = records.latest(self._observed.records)
        return is_written or last is None or last.name == name_of(manifest)

    async def _apply(self, manifest: Manifest) -> bool:
        """Apply one object; return whether it is now as it should be."""
        try:
            if await self._kube.apply(manifest, self._body, self._observed):
                self._log("applied", manifest["kind"], name_of(manifest))
        except (Conflict, Vanishing):
            raise  # it has changed since we looked: so may everything else
        except KubeError as error:
            self._block(trouble_of(name_of(manifest), error))
            return False
        return True

    async def _take(self, step: GroupStep) -> None:
        """Apply or delete one group's StatefulSet, then delete its pods that have to go."""
        # Pods stay until their template is what it should be; a group that goes does so without its mark, too.
        if step.manifest is not None and not await self._apply(step.manifest) and not step.delete:
            return
        if step.delete:
            live = self._observed.stateful_set(step.name)
            if live is None or not await self._deleted("StatefulSet", step.name, live["metadata"]["uid"]):
                return
        deleted = [pod for pod in step.delete_pods if await self._deleted("Pod", pod.name, pod.uid)]
        self.done.append(replace(step, delete_pods=tuple(deleted)))

    async def _poke(self, pod: GatewayPod, digest: str) -> None:
        """Have the kubelet bring a gateway its file now. Where it cannot be, the file comes within a minute or so."""
        namespace = self._body["metadata"]["namespace"]
        try:
            await self._kube.note(pod.name, namespace, pod.uid, names.CONFIG_ANNOTATION, digest)
        except Vanishing:
            raise
        except KubeError as error:
            logger.info("pod %s is not told of its file: %s", pod.name, error)
        else:
            self._log("told", "Pod", pod.name)

    async def _forget(self, name: str) -> None:
        """Delete a record nobody needs any more. One that cannot be deleted does no harm, so it is not reported."""
        live = self._observed.live["apps/v1", "ControllerRevision", name]
        try:
            await self._delete("ControllerRevision", name, live["metadata"]["uid"])
        except Vanishing:
            raise
        except KubeError as error:
            logger.info("record %s stays: %s", name, error)

    async def _deleted(self, kind: str, name: str, uid: str) -> bool:
        """Delete one object; return whether it is gone or going."""
        try:
            await self._delete(kind, name, uid)
        except Vanishing:
            raise
        except Rejected as error:  # so says a webhook that gives no code of its own
            self._block(Trouble(name, "WriteDenied", str(error)))
        except KubeError as error:
            self._block(trouble_of(name, error))
        else:
            return True
        return False

    async def _delete(self, kind: str, name: str, uid: str) -> None:
        await self._kube.delete(kind, self._body["metadata"]["namespace"], name, uid)
        self._log("deleted", kind, name)

    def _block(self, trouble: Trouble) -> None:
        if trouble not in self.blocked:
            self.blocked.append(trouble)

    def _log(self, done: str, kind: str, name: str) -> None:
        self.changed = True
        metadata = self._body["metadata"]
        logger.info("deployment=%s/%s %s %s %s", metadata["namespace"], metadata["name"], done, kind, name)
