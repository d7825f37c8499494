"""The writes of one pass, one by one, and what became of each."""

import logging
from dataclasses import replace

from glm_operator.api.status import Reason
from glm_operator.errors import Conflict, Denied, ForeignObject, LeftOver, Rejected, Unavailable
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import Blocked, Observed
from glm_operator.observe.ownership import check_ownership
from glm_operator.reconcile.ports import Cluster
from glm_operator.render import stateful_set
from glm_operator.rollout import records
from glm_operator.rollout.steps import GroupStep, Target

logger = logging.getLogger(__name__)


class Act:
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
            self.blocked.append(Blocked(name_of(manifest), reason_of(error), str(error)))
        else:
            return True
        return False

    async def record(self, target: Target) -> bool:
        """Write down the spec that groups are to be moved to; return whether they may be.

        A first spec may without: nothing is lost by it. So may one that is the last record already.
        """
        manifest, last = records.record(target, self._observed.records), records.latest(self._observed.records)
        return await self.apply(manifest) or last is None or last.name == name_of(manifest)

    async def take(self, step: GroupStep, target: Target | None) -> None:
        """Apply or delete one group's StatefulSet, then delete its pods that have to go."""
        if step.render and target is not None:
            if not await self.apply(stateful_set(target.deployment, target.layout, step.index)):
                return  # its pods stay until its template is what it should be
        elif step.delete:
            live = self._observed.live["apps/v1", "StatefulSet", step.name]
            if not await self._deleted("StatefulSet", step.name, live["metadata"]["uid"]):
                return
        elif step.name in self._observed.foreign:
            self._tell_foreign(step.name)
        deleted = [pod for pod in step.delete_pods if await self._deleted("Pod", pod.name, pod.uid)]
        self.done.append(replace(step, delete_pods=tuple(deleted)))

    def _tell_foreign(self, name: str) -> None:
        """Tell of a StatefulSet in the place of a group that is not wanted: its pods are behind our Service."""
        try:
            check_ownership(self._observed.foreign[name], self._body)
        except ForeignObject as error:
            self.blocked.append(Blocked(name, "NameConflict", str(error)))
        except LeftOver:
            pass  # about to be collected

    async def forget(self, name: str) -> None:
        """Delete a record nobody needs any more. One that cannot be deleted does no harm, so it is not told of."""
        live = self._observed.live["apps/v1", "ControllerRevision", name]
        try:
            await self._delete("ControllerRevision", name, live["metadata"]["uid"])
        except (Rejected, Unavailable) as error:
            logger.info("record %s stays: %s", name, error)

    async def _deleted(self, kind: str, name: str, uid: str) -> bool:
        """Delete one object; return whether it is gone or going."""
        try:
            await self._delete(kind, name, uid)
        except Rejected as error:  # so says a webhook that gives no code of its own
            self.blocked.append(Blocked(name, "WriteDenied", str(error)))
        except Unavailable as error:
            self.blocked.append(Blocked(name, reason_of(error), str(error)))
        else:
            return True
        return False

    async def _delete(self, kind: str, name: str, uid: str) -> None:
        await self._kube.delete(kind, self._body["metadata"]["namespace"], name, uid)
        self._log("deleted", kind, name)

    def _log(self, done: str, kind: str, name: str) -> None:
        self.changed = True
        metadata = self._body["metadata"]
        logger.info("deployment=%s/%s %s %s %s", metadata["namespace"], metadata["name"], done, kind, name)


def reason_of(error: Unavailable) -> Reason:
    """Return the reason to tell of a write that was not done."""
    return "WriteDenied" if isinstance(error, Denied) else "WriteFailed"
