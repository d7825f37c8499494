"""Whether clients are served by the gateway, in the words of a condition. Pure."""

from collections.abc import Mapping

from glm_operator import names
from glm_operator.api.trouble import worst
from glm_operator.manifest import Manifest
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
    return _of_file(facts) or _of_pods(facts) or _of_rollout(facts) or _of_certificates(facts) or _of_service(facts)


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
    return _what_keeps_pods(facts) or ("False", "GatewayStarting", _count(facts))


def _of_rollout(facts: Facts) -> Said | None:
    """Return what keeps new pods from taking the place of old ones. Till then these serve as they were started."""
    status = (_live(facts) or {}).get("status") or {}
    num_old = status.get("replicas", 0) - status.get("updatedReplicas", 0)
    if num_old <= 0:
        return None
    found = _what_keeps_pods(facts)
    if found is not None:
        return found[0], found[1], f"{found[2]}; {num_old} pods from before the last change serve meanwhile"
    down = [pod.name for pod in facts.observed.gateway if not pod.is_ready and not pod.is_leaving]
    look = f" (kubectl describe pod {down[0]})" if down else ""
    message = f"{_count(facts)}, {num_old} of them from before the last change, until new ones are ready{look}"
    progress = _said_of(facts, "Progressing")
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return "False", "RolloutStuck", f"{message}; {progress.get('message', '')}"
    return "False", "GatewayStarting", message


def _what_keeps_pods(facts: Facts) -> Said | None:
    """Return what somebody said against a pod of the gateway: the API server, or the kubelet."""
    refusal = _said_of(facts, "ReplicaFailure")
    if refusal.get("status") == "True":
        return "False", "WriteDenied", f"{_count(facts)}; {refusal.get('message', '')}"
    troubles = [pod.trouble for pod in facts.observed.gateway if not pod.is_leaving and pod.trouble is not None]
    if not troubles:
        return None
    found = worst(troubles)
    return "False", found.reason, f"{_count(facts)}; {found.message}"


def _of_certificates(facts: Facts) -> Said | None:
    """Return what keeps certificates from being renewed, or groups from being without them."""
    front = facts.front
    if front.uncertified is not None:
        return "True", front.uncertified.reason, f"{_count(facts)}; {front.uncertified.message}"
    return ("True", "GroupsSpeakTLS", f"{_count(facts)}; {front.stays}") if front.stays else None


def _live(facts: Facts) -> Manifest | None:
    return facts.observed.live.get(("apps/v1", "Deployment", names.gateway_name(facts.name)))


def _said_of(facts: Facts, kind: str) -> Mapping[str, str]:
    """Return a condition of the gateway's Deployment; empty where there is none."""
    conditions = ((_live(facts) or {}).get("status") or {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == kind), {})


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
    if facts.front.multiplied:
        count += "; each of them lets in all that access.limits allow: say gateway.store, or gateway.replicas: 1"
    return "True", "GatewayServes", f"{count}; {facts.front.canary}" if facts.front.canary else count


def _num_ready(facts: Facts) -> int:
    return sum(pod.is_ready for pod in facts.observed.gateway)


def _count(facts: Facts) -> str:
    return f"{_num_ready(facts)}/{facts.front.replicas} pods of the gateway are ready"
