"""Ask the API server about a pod: of a spec, before anything is moved to it, and of a group that lacks one.

Only it knows every rule of a pod and every policy of its cluster, and what it refuses must not become the record that
running groups are repaired from (docs/design/0004-accepted-specs.md). Of a pod that a StatefulSet may not make, nothing
else would tell but an Event of that StatefulSet.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from glm_operator.errors import Conflict, Denied, ForeignObject, LeftOver, Rejected, Unavailable
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.observe.trouble import Trouble
from glm_operator.reconcile.ports import Cluster
from glm_operator.reconcile.quota import would_fit_alone
from glm_operator.reconcile.writes import reason_of
from glm_operator.render import missing_pod, service_account, stateful_set, trial_pod
from glm_operator.rollout import records
from glm_operator.rollout.steps import Target
from glm_operator.status.conditions import Refused


async def try_spec(kube: Cluster, body: Manifest, newest: Target, observed: Observed) -> Refused | None:
    """Return why what is not the last accepted spec, rendered as it was then, cannot be; None if it can.

    Writes nothing, but for the account of a first spec: the pod cannot be judged without one, and no edit changes it.
    """
    last = records.latest(observed.records)
    accepted = (last.name, last.revision) if last is not None else None
    if accepted == (records.name_of_spec(newest.deployment), newest.revision):
        return None
    try:
        await _try_stateful_set(kube, body, newest, observed, is_first=last is None)
        if last is None and not await _has_account(kube, body, newest, observed):
            return None
        await _try_pod(kube, trial_pod(newest.deployment, newest.layout, owner_uid=body["metadata"]["uid"]))
    except Rejected as error:
        return Refused("ApplyRefused", str(error))
    except Conflict:
        raise
    except Unavailable as error:
        return Refused(reason_of(error), str(error))
    return None


async def try_missing_pod(
    kube: Cluster, body: Manifest, observed: Observed, groups: Iterable[ObservedGroup], now: datetime
) -> ObservedGroup | None:
    """Return the group whose missing pod cannot be made, with what the API server says; None if there is none.

    groups: those that this pass has not changed: the others' StatefulSets are about to make other pods.
    One pod is tried, the first that is missing: where many are, the first to be refused is enough to tell.
    """
    group = next((group for group in groups if group.missing), None)
    if group is None:
        return None
    index = group.missing[0]
    try:
        await kube.try_pod(missing_pod(observed.live["apps/v1", "StatefulSet", group.name], index))
        return None
    except Rejected as error:
        refused = Trouble("ApplyRefused", str(error))
    except Conflict as error:
        refused = Trouble("NameConflict", str(error))
    except Unavailable as error:
        refused = Trouble(reason_of(error), str(error))
    # It may have been made since we looked, and be itself what has the name or the last of a quota.
    seen = (await kube.observe(body, now)).groups.get(group.index)
    return replace(group, refused=refused) if seen is not None and index in seen.missing else None


async def _try_stateful_set(
    kube: Cluster, body: Manifest, newest: Target, observed: Observed, *, is_first: bool
) -> None:
    try:
        await kube.apply(stateful_set(newest.deployment, newest.layout, 0), body, observed, dry_run=True)
    except (ForeignObject, LeftOver):
        return  # the spec is not to blame; told when it is applied
    except Conflict:
        raise
    except Unavailable:
        # With nothing to fall back to, everything else is made, and the one write that fails is told as blocked.
        if not is_first:
            raise


async def _has_account(kube: Cluster, body: Manifest, newest: Target, observed: Observed) -> bool:
    try:
        await kube.apply(service_account(newest.deployment.name, newest.deployment.namespace), body, observed)
    except (ForeignObject, LeftOver):
        return True  # not ours, but there
    except Conflict:
        raise
    except (Rejected, Unavailable):
        return False  # told when it is applied, as the rest
    return True


async def _try_pod(kube: Cluster, pod: Manifest) -> None:
    """Ask about a pod itself: pod security, limit ranges and most policies look at pods, and only at pods."""
    try:
        await kube.try_pod(pod)
    except Denied as error:
        if not would_fit_alone(str(error)):  # else those it would replace may hold it; if not, its group tells
            raise
