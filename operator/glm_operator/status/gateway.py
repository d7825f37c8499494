"""Whether clients are served by the gateway, in the words of a condition. Pure."""

from glm_operator import names
from glm_operator.api.trouble import worst
from glm_operator.status.facts import Facts
from glm_operator.status.slo import Said

SOME = 5


def gateway_ready(facts: Facts) -> Said:
    """Return whether there is a gateway that serves, or why not."""
    front = facts.front
    if front.fault is not None:
        return "Unknown", front.fault.reason, f"{front.fault.message}; the gateway stays as it is"
    if front.absent is not None:
        return "False", *front.absent
    ours = {facts.name, names.gateway_name(facts.name), names.groups_service(facts.name)}
    blocked = next((trouble for trouble in facts.blocked if trouble.about in ours), None)
    if blocked is not None:
        return "False", blocked.reason, blocked.message
    pods = [pod for pod in facts.observed.gateway if not pod.is_leaving]
    ready = [pod for pod in pods if pod.is_ready]
    count = f"{len(ready)}/{front.replicas} pods of the gateway are ready"
    refusals = [f"{name}: {state.config_fault}" for name, state in facts.gateway.items() if state.config_fault]
    if refusals:
        return "False", "GatewayFileRefused", f"{'; '.join(refusals[:SOME])}; it goes on with the file before"
    if len(ready) < front.replicas:
        troubles = [pod.trouble for pod in pods if pod.trouble is not None]
        if troubles:
            found = worst(troubles)
            return "False", found.reason, f"{count}; {found.message}"
        return "False", "GatewayStarting", count
    if front.unserved:
        return "True", "NotServed", f"{count}; {'; '.join(front.unserved[:SOME])}"
    plain = sorted({group for state in facts.gateway.values() for group in state.plain_groups})
    if plain:
        message = (
            f"{count}; {len(plain)} groups ({', '.join(plain[:SOME])}) are of the version before: what they stream is "
            f"not continued elsewhere. Adopt the newer rendering: kubectl glm rollout adopt {facts.name}"
        )
        return "True", "PlainGroups", message
    if any(state.keys == 0 for state in facts.gateway.values()):
        return "True", "NoKeys", f"{count}; nobody has a key yet: glm keys create NAME"
    return "True", "GatewayServes", count
