"""Whether workers treat requests as spec.reasoning and spec.access say, in the words of a condition. Pure."""

from glm_operator.observe.report import policy_digest
from glm_operator.status.facts import Facts
from glm_operator.status.groups import shortened
from glm_operator.status.slo import MOST_REFUSALS, TEXT_BYTES, Said


def policy_applied(facts: Facts) -> Said:
    """Return whether every group that serves has the policy of the spec. Where nothing is asked for, all have it."""
    serving = {name: report for name, report in sorted(facts.reports.items()) if report.state == "serving"}
    untold = [name for name, report in serving.items() if report.awaits_policy]
    less = f"; {_some(untold)}: never told any, so reasoning is hidden from everybody there" if untold else ""
    if facts.policy_fault is not None:
        return "Unknown", facts.policy_fault.reason, f"{facts.policy_fault.message}; workers keep what they have{less}"
    if facts.policy is None:
        return "Unknown", "PolicyPending", "not read yet"
    wanted, is_default = policy_digest(facts.policy.for_workers()), facts.policy.is_default
    lacking = [] if is_default else [name for name, report in serving.items() if not report.takes_policy]
    others = [
        name
        for name, each in serving.items()
        if each.takes_policy and not each.has_policy(wanted, is_default=is_default)
    ]
    refused = [name for name in others if name in facts.policy_refused]
    told = [f"{name}: {facts.policy_refused[name]}" for name in refused]
    if lacking:
        told.insert(0, f"{_some(lacking)}: the worker image is of an older version, which knows no policy")
    if told:
        more = f" (and {len(told) - MOST_REFUSALS} more)" if len(told) > MOST_REFUSALS else ""
        words = "; ".join(shortened(each, TEXT_BYTES) for each in told[:MOST_REFUSALS])
        return "False", "PolicyNotTaken", words + more + less
    if others:
        return "Unknown", "PolicyPending", f"not told yet: {_some(others)}{less}"
    if not facts.members:
        return "Unknown", "ScaledToZero", "no group is wanted"
    unheard = [group.name for group in facts.members if group.is_available and group.name not in facts.reports]
    if unheard and not facts.policy.is_default:
        return facts.said_before("PolicyApplied") or ("Unknown", "PolicyPending", f"not heard yet: {_some(unheard)}")
    if not serving and not facts.policy.is_default:
        return "Unknown", "PolicyPending", "no group serves yet"
    if facts.policy.is_default:
        return "True", "PolicyTaken", "spec.reasoning and spec.access ask for nothing but the defaults"
    return "True", "PolicyTaken", f"{_some(list(serving))}: as spec.reasoning and spec.access say"


def _some(names: list[str]) -> str:
    return ", ".join(names[:20])
