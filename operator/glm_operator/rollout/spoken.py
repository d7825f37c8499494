"""What groups and their gateway speak with each other, and what follows from it for the gateway. Pure."""

from glm_operator import names
from glm_operator.api.front import Front
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed
from glm_operator.render import speaks_tls
from glm_operator.rollout.target import Target


def speak_tls(observed: Observed, target: Target | None) -> bool:
    """Tell whether any group speaks TLS, or would if it came."""
    if target is not None and speaks_tls(target.templates[target.revision]["spec"]["template"]):
        return True
    live = [observed.stateful_set(group.name) for group in observed.groups.values() if group.exists]
    return any(speaks_tls(each["spec"]["template"]) for each in live if each is not None)


def serves_others_by_tls(front: Front, live: Manifest | None) -> bool:
    """Tell whether a gateway may know groups of other deployments by its certificate. live: its Deployment."""
    if front.gateway is None or front.gateway.also_serves is None or live is None:
        return False
    volumes = live["spec"]["template"]["spec"].get("volumes") or []
    return any(volume.get("name") == names.WORKERS_VOLUME for volume in volumes)


def why_it_stays(front: Front, name: str, *, has_tls: bool, are_made: bool) -> str:
    """Return why the groups of a deployment are to be moved to a rendering without TLS; empty: they are not.

    are_made: the operator makes certificates.
    """
    if not has_tls or (front.is_wanted and are_made):
        return ""
    move = f"move them first: kubectl glm rollout adopt {name}"
    if not front.is_wanted:
        return f"gateway.enabled is false, and groups speak TLS, which clients of theirs do not: {move}"
    return f"certificates.enabled of the operator is false, and groups speak TLS, which nobody renews: {move}"
