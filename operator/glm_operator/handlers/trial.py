"""try_spec: ask the API server, before anything is moved to a spec, whether it would take the pods of it.

Only it knows every rule of a pod and every policy of its cluster, and what it refuses must not become the record that
running groups are repaired from (docs/design/0004-accepted-specs.md).
"""

from glm_operator import records
from glm_operator.conditions import Refused
from glm_operator.errors import Conflict, Denied, ForeignObject, LeftOver, Rejected, Unavailable
from glm_operator.handlers.act import reason_of
from glm_operator.handlers.neighbours import Cluster
from glm_operator.manifest import Manifest
from glm_operator.observed import Observed
from glm_operator.render import stateful_set, trial_pod
from glm_operator.rollout import Target


async def try_spec(kube: Cluster, body: Manifest, newest: Target, observed: Observed) -> Refused | None:
    """Return why a spec that is not the last accepted one cannot be; None if it can. Writes nothing."""
    last = records.latest(observed.records)
    if last is not None and last.name == records.name_of_spec(newest.deployment):
        return None
    try:
        await _try_stateful_set(kube, body, newest, observed)
        # The deployment's own account is there only since its first accepted spec.
        await _try_pod(kube, trial_pod(newest.deployment, newest.layout, has_account=last is not None))
    except Rejected as error:
        return Refused("ApplyRefused", str(error))
    except Conflict:
        raise
    except Unavailable as error:
        # With nothing to fall back to, everything else is made, and the one write that fails is told as blocked.
        return Refused(reason_of(error), str(error)) if last is not None else None
    return None


async def _try_stateful_set(kube: Cluster, body: Manifest, newest: Target, observed: Observed) -> None:
    try:
        await kube.apply(stateful_set(newest.deployment, newest.layout, 0), body, observed, dry_run=True)
    except (ForeignObject, LeftOver):
        return  # the spec is not to blame; told when it is applied


async def _try_pod(kube: Cluster, pod: Manifest) -> None:
    """Ask about a pod itself: pod security, limit ranges and most policies look at pods, and only at pods."""
    try:
        await kube.try_pod(pod)
    except Denied as error:
        if "exceeded quota" not in str(error):  # the pods that this one would replace hold it
            raise
