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
    return _of_file(facts) or _of_pods(facts) or _of_service(facts)


def _of_file(facts: Facts) -> Said | None:
    """Return what is wrong with the file at some pod. One that only a new pod can take is no fault: it is replaced."""
    wanted = facts.front.digest
    faults = [f"{name}: {state.config_fault}" for name, state in facts.gateway.items() if state.config_fault]
    refusals = [
        f"{name}: {state.config_fault}"
        for name, state in facts.gateway.items()
        if state.config_fault and state.config_digest != wanted
    ]
    if refusals:
        return "False", "GatewayFileRefused", f"{'; '.join(refusals[:SOME])}; it goes on with the file before"
    return ("False", "GatewayStarting", f"to be replaced: {'; '.join(faults[:SOME])}") if faults else None


def _of_pods(facts: Facts) -> Said | None:
    """Return why not as many pods are ready as there are to be."""
    if _num_ready(facts) >= facts.front.replicas:
        return None
    troubles = [pod.trouble for pod in facts.observed.gateway if not pod.is_leaving and pod.trouble is not None]
    if not troubles:
        return "False", "GatewayStarting", _count(facts)
    found = worst(troubles)
    return "False", found.reason, f"{_count(facts)}; {found.message}"


def _of_service(facts: Facts) -> Said:
    """Return how it serves, now that it does."""
    count = _count(facts)
    if facts.front.unserved:
        return "True", "NotServed", f"{count}; {'; '.join(facts.front.unserved[:SOME])}"
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


def _num_ready(facts: Facts) -> int:
    return sum(pod.is_ready for pod in facts.observed.gateway)


def _count(facts: Facts) -> str:
    return f"{_num_ready(facts)}/{facts.front.replicas} pods of the gateway are ready"
