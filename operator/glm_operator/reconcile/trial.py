"""Dry runs: of a new spec's pod, before anything is moved to it, and of a pod that a group is missing.

Only the API server knows every rule of a pod and every policy of its cluster, and what it refuses must not become the
record that running groups are repaired from (docs/design/0004-accepted-specs.md). Of a pod that a StatefulSet may not
create, nothing else would report but an Event of that StatefulSet.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from glm_operator import names
from glm_operator.api.trouble import Trouble, trouble_of
from glm_operator.errors import Conflict, Denied, ForeignObject, KubeError, LeftOver, Unavailable, Vanishing
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.reconcile.ports import Cluster
from glm_operator.reconcile.quota import would_fit_alone
from glm_operator.render import missing_pod, needs_another, service_account, stateful_set, trial_pod
from glm_operator.rollout.target import Target


async def try_target(kube: Cluster, body: Manifest, target: Target, observed: Observed) -> Trouble | None:
    """Dry-run a target that is not the last accepted one; return why it is refused.

    Writes nothing, but for the account of a first spec: the pod cannot be judged without one, and no edit changes it.
    """
    is_first = not observed.records
    group, template = names.group_name(target.name, 0), target.templates[target.revision]
    try:
        await _try_stateful_set(kube, body, target, observed, is_first=is_first)
        if is_first and not await _has_account(kube, body, target, observed):
            return None
        pod = trial_pod(template, target.namespace, group, target.revision, owner_uid=body["metadata"]["uid"])
        await _try_pod(kube, pod)
    except (Conflict, Vanishing):
        raise
    except KubeError as error:
        return trouble_of("spec", error)
    return None


async def try_missing_pod(
    kube: Cluster, body: Manifest, observed: Observed, groups: Iterable[ObservedGroup], now: datetime
) -> ObservedGroup | None:
    """Return the group whose missing pod cannot be created, with what the API server says; None if there is none.

    groups: those that this pass has not changed: the others' StatefulSets are about to create other pods.
    One pod is tried, the first that is missing: where many are, the first to be refused is enough to report.
    """
    group = next((group for group in groups if group.missing), None)
    live = observed.stateful_set(group.name) if group is not None else None
    if group is None or live is None:
        return None
    index = group.missing[0]
    try:
        await kube.try_pod(missing_pod(live, index))
    except Vanishing:
        raise
    except KubeError as error:
        refused = trouble_of(group.name, error)
    else:
        return None
    # It may have been made since we looked, and be itself what has the name or the last of a quota.
    seen = (await kube.observe(body, now)).groups.get(group.index)
    return replace(group, refused=refused) if seen is not None and index in seen.missing else None


async def _try_stateful_set(
    kube: Cluster, body: Manifest, target: Target, observed: Observed, *, is_first: bool
) -> None:
    """Dry-run the StatefulSet over that of an existing group, unless it is one that no update can change."""
    existing = [group.name for group in observed.groups.values() if group.exists]
    group = existing[0] if existing else names.group_name(target.name, 0)
    wanted = stateful_set(target.templates[target.revision], target.namespace, group, target.revision)
    live = observed.stateful_set(group)
    if live is not None and needs_another(wanted, live):
        return
    try:
        await kube.apply(wanted, body, observed, dry_run=True)
    except (ForeignObject, LeftOver):
        return  # the spec is not to blame; reported when it is applied
    except Conflict:
        raise
    except Unavailable:
        # With nothing to fall back to, everything else is made, and the one write that fails is reported as blocked.
        if not is_first:
            raise


async def _has_account(kube: Cluster, body: Manifest, target: Target, observed: Observed) -> bool:
    try:
        await kube.apply(service_account(target.name, target.namespace), body, observed)
    except (ForeignObject, LeftOver):
        return True  # not ours, but there
    except (Conflict, Vanishing):
        raise
    except KubeError:
        return False  # reported when it is applied, as the rest
    return True


async def _try_pod(kube: Cluster, pod: Manifest) -> None:
    """Dry-run a pod itself: pod security, limit ranges and most policies look at pods, and only at pods."""
    try:
        await kube.try_pod(pod)
    except Denied as error:
        if not would_fit_alone(str(error)):  # else those it would replace may hold it; if not, its group reports
            raise
