"""What a decision says of itself, for people. Pure."""

from glm_operator.autoscale import constants as law
from glm_operator.autoscale.bounds.limits import Bounds
from glm_operator.autoscale.decision import Cause, Limit, number
from glm_operator.autoscale.demand import Demand
from glm_operator.autoscale.moment import Moment
from glm_operator.autoscale.zero.asked import Asked


def message(moment: Moment, cause: Cause, limit: Limit | None, bounds: Bounds) -> str:
    needed, kept = moment.demand, moment.kept
    waited = f"the oldest request waits {number(moment.sums.oldest_s.value)} s"
    beyond = f"; {waited}, since before the last group came" if moment.waits_in_vain else ""
    needs = needed.needs
    words: dict[Cause, str] = {
        "Steady": f"{_groups(needed.most)} needed, {moment.current} there{beyond}",
        "Demand": f"{_groups(needs.get('Demand', 0.0))} needed for what arrives: {_work(needed)}{_beside(moment)}",
        "Waiting": f"{waited} of {number(kept.wait_s)} s, and "
        f"{number(needed.backlog_s or 0.0)} s of work of one group wait",
        "KVCache": f"{_groups(needs.get('KVCache', 0.0))} needed for what KV caches hold, at {law.KV_TARGET:.0%} full",
        "Latency": f"{kept.worst_of}; {_groups(needs.get('Latency', 0.0))} needed",
        "Lookahead": f"load rises: {_groups(needs.get('Lookahead', 0.0))} needed when a new one serves, "
        f"in {moment.credit.cold_start_s:.0f} s",
        "Schedule": f"schedule {', '.join(bounds.scheduled)} sets {bounds.least} to {bounds.most} groups",
        "Bounds": f"{moment.current} is outside of {bounds.least} to {bounds.most}",
        "Surplus": f"{_groups(needed.most)} needed, and fewer than {moment.current} carry it with a margin",
        "NoData": _unknown(moment),
        "Woken": waited,
        "Idle": waited,
    }
    return words[cause] + _held(moment) + (f"; limited by {limit}" if limit else "")


def _held(moment: Moment) -> str:
    """Return what waits at gateways, where anything does."""
    held = moment.asked.held
    if held <= 0.0:
        return ""
    tokens = moment.asked.held_tokens(moment.memory.rates.prompt_tokens or 0.0)
    requests = "1 request" if held == 1.0 else f"{number(held)} requests"
    return f"; waits at gateways: {requests}, {number(tokens)} tokens"


def _groups(need: float) -> str:
    return f"{need:.2f} groups"


def _work(needed: Demand) -> str:
    parts = (("prefill", needed.prefill), ("decode", needed.decode))
    return ", ".join(f"{name} {value:.2f}" for name, value in parts if value is not None) or "not measured yet"


def _beside(moment: Moment) -> str:
    """Return the groups whose load is not seen, and that are needed all the same."""
    lost = moment.lost
    if not lost:
        return ""
    return f", and {len(lost)} for {few(lost)}, which {'shows' if len(lost) == 1 else 'show'} nothing"


def _unknown(moment: Moment) -> str:
    if moment.demand.is_known:
        return f"{deaf(moment.asked)}, so no group goes"
    if not moment.silent and moment.situation.serving <= 0:
        return "no group serves yet, so nothing is measured"
    if moment.silent:
        return f"no fresh numbers of {few(moment.silent)}"
    if moment.hung:
        return f"requests wait at {few(moment.hung)}, and no step is computed"
    if not moment.sums.are_known:
        return "not every number of the groups is known"
    return "what a group can do was not measured yet"


def deaf(asked: Asked) -> str:
    """Return which gateways say nothing."""
    if not asked.gateways:
        return "no gateway runs"
    if len(asked.silent) == 1:
        return f"gateway {asked.silent[0]} does not say what it is asked"
    return f"gateways {few(asked.silent)} do not say what they are asked"


def few(groups: tuple[str, ...]) -> str:
    """Return the first of some names, and how many more there are."""
    return ", ".join(groups[:3]) + (f" and {len(groups) - 3} more" if len(groups) > 3 else "")
