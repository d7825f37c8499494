"""One moment of a deployment: what there is, what the load asks for, and what was learnt from looking. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale import constants as law
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.demand import Credit, Demand, Load, Sums, arriving_need, demand, is_whole, sums
from glm_operator.autoscale.estimate import coldstart, held, rates, trend
from glm_operator.autoscale.estimate.promises import Promises, promises
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.series import SHORT_WINDOW_S
from glm_operator.autoscale.signals import RATES, GroupSignals, Input, Signals, State
from glm_operator.autoscale.zero.asked import Asked


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Everything about one moment. memory: as it is after this moment was looked at."""

    scaling: Scaling
    situation: Situation
    now_s: float
    current: int
    sums: Sums
    kept: Promises
    credit: Credit
    demand: Demand
    memory: Memory
    silent: tuple[str, ...]  # groups that show nothing fresh
    is_blind: bool  # there are groups that serve, and none of them shows anything fresh
    lost: tuple[str, ...]  # groups that showed their load once, and are needed beside those that show it now
    hung: tuple[str, ...]  # groups that have requests and compute nothing
    all_queue: bool  # requests wait at gateways, or in every group that computes and shows something fresh
    is_late: bool
    has_settled: bool
    inputs: Mapping[str, Input]
    asked: Asked  # what gateways say

    @classmethod
    def of(
        cls,
        scaling: Scaling,
        slo: Slo,
        situation: Situation,
        signals: Signals,
        memory: Memory,
        now_s: float,
        elapsed_s: float,
    ) -> "Moment":
        memory = _hanging(memory, signals, now_s)
        signals = _thawed(signals, memory, now_s)
        fresh = _fresh(signals, now_s)
        memory, mean_prompt = _held(memory, signals.asked, now_s), memory.rates.prompt_tokens or 0.0
        rise = held.rise(memory.held, now_s)
        found = sums(signals, now_s, mean_prompt, rise)
        going_on = _going_on(signals, fresh)
        carried = found if going_on is signals else sums(going_on, now_s, mean_prompt, rise)
        memory, part = _shown(_watched(memory, situation, fresh, now_s), signals, fresh)
        warm = [each for each in fresh if _is_warm(each, scaling.warm_up_seconds, now_s)]
        memory = replace(memory, rates=rates.learn(memory.rates, warm, elapsed_s, fresh))
        memory = _levelled(memory, carried, part, elapsed_s, now_s)
        kept = promises(slo, signals, memory.rates, situation, memory.infeasible)
        is_late = found.oldest_s.value >= law.LATE * kept.wait_s
        credit = _credit(situation, memory, part, now_s)
        settle_s = max(law.SETTLE_S, scaling.warm_up_seconds)
        has_settled = _has_settled(memory, credit, now_s, settle_s)
        load, ahead = _loads(memory, carried, part, credit, now_s)
        use = scaling.target_utilization / 100.0
        can_help = is_late or arriving_need(load, memory.rates, kept, use) >= law.CAN_HELP * credit.groups
        may_rise = _has_settled(memory, credit, now_s, settle_s + SHORT_WINDOW_S)
        boost = _boost(memory, kept, elapsed_s, can_help=can_help, may_rise=may_rise)
        needed = demand(load, ahead, found.are_known, memory.rates, kept, credit, use, boost, len(part.lost))
        memory = replace(memory, boost=boost, infeasible=kept.broken)
        return cls(
            scaling=scaling,
            situation=situation,
            now_s=now_s,
            current=situation.spec_groups,
            sums=found,
            kept=kept,
            credit=credit,
            demand=needed,
            memory=memory,
            silent=tuple(sorted(signals.expected - {each.group for each in fresh})),
            is_blind=bool(signals.expected) and not fresh,
            lost=part.lost,
            hung=tuple(each.group for each in fresh if each.is_hung),
            all_queue=signals.asked.held > 0.0 or all(_queues(each) for each in fresh if not each.is_hung),
            is_late=is_late or (can_help and kept.is_missed),
            has_settled=has_settled,
            inputs=_inputs(found, needed, kept, credit, memory, boost)
            | (held_inputs(signals.asked, memory, now_s) if signals.asked.gateways else {}),
            asked=signals.asked,
        )

    @property
    def waits_in_vain(self) -> bool:
        """Whether the oldest request waited already when the last group came. It did not help; no other one will."""
        grew_s = self.memory.grew_s
        return self.is_late and grew_s is not None and self.sums.oldest_s.value > self.now_s - grew_s


def _fresh(signals: Signals, now_s: float) -> list[GroupSignals]:
    return [
        each
        for name, each in sorted(signals.groups.items())
        if name in signals.expected
        and name not in signals.stale
        and -law.AHEAD_S <= now_s - each.at_s <= law.STALE_MAX_S
    ]


def _going_on(signals: Signals, fresh: list[GroupSignals]) -> Signals:
    """Return the signals without the groups that hang, where others go on: what waits there waits on, whoever comes."""
    hung = {each.group for each in fresh if each.is_hung}
    if not hung or len(hung) == len(fresh):
        return signals
    return replace(signals, groups={name: each for name, each in signals.groups.items() if name not in hung})


def _queues(group: GroupSignals) -> bool:
    """Whether requests wait in a group, as far as it says."""
    return group.requests_waiting > 0.0 or "requests_waiting" in group.missing


def _is_warm(group: GroupSignals, warm_up_s: float, now_s: float) -> bool:
    return group.serving_since_s is None or now_s - group.serving_since_s >= warm_up_s


def _watched(memory: Memory, situation: Situation, fresh: list[GroupSignals], now_s: float) -> Memory:
    """Return the memory after a look at how many groups start and serve."""
    starting, serving = min(max(situation.starting, 0), 10_000), max(situation.serving, 0)
    newly = 0 if memory.serving is None else max(serving - memory.serving, 0)
    starts = coldstart.watched(
        memory.starts,
        starting=starting,
        newly_serving=newly,
        now_s=now_s,
        is_first=memory.serving is None,
        is_moving=situation.is_moving,
    )
    return replace(
        memory,
        starts=coldstart.reported(starts, fresh),
        serving=serving,
        grew_s=now_s if newly > 0 and memory.serving else memory.grew_s,  # the first group came to no queue
    )


def _hanging(memory: Memory, signals: Signals, now_s: float) -> Memory:
    """Return the memory with the groups that hang now, or did so lately."""
    lately = {name: at_s for name, at_s in memory.hung.items() if now_s - at_s < law.THAW_S and name in signals.groups}
    now = {name: now_s for name, each in signals.groups.items() if each.is_hung}
    return replace(memory, hung={**lately, **now}) if lately or now or memory.hung else memory


def _thawed(signals: Signals, memory: Memory, now_s: float) -> Signals:
    """Return the signals without the rates of groups that hung lately.

    When their counters move again, they jump by what happened meanwhile, or by nothing of it. Neither is a rate.
    """
    thawed = {
        name: replace(each, **dict.fromkeys(RATES))  # type: ignore[arg-type]  # all of them may be None
        for name, each in signals.groups.items()
        if memory.hung.get(name, now_s) != now_s
    }
    return replace(signals, groups={**signals.groups, **thawed}) if thawed else signals


@dataclass(frozen=True)
class Part:
    """How much of the load is seen. lost: groups that serve and once showed their load, and do not now."""

    lost: tuple[str, ...] = ()
    share: float = 1.0  # of the groups that are lost or seen, those that are seen


def _shown(memory: Memory, signals: Signals, fresh: list[GroupSignals]) -> tuple[Memory, Part]:
    """Return the memory with the groups that show their load, and what part of the load that is.

    Where more groups are lost than seen, the few say too little of them.
    """
    now = frozenset(each.group for each in fresh if is_whole(each))
    once = (memory.shown & signals.expected) | now
    lost = tuple(sorted(once - now))
    part = Part(lost, len(now) / len(once)) if lost and len(lost) <= len(now) else Part()
    return (memory if once == memory.shown else replace(memory, shown=once)), part


def _held(memory: Memory, asked: Asked, now_s: float) -> Memory:
    """Return the memory with what waits at gateways now. Of what is not known of all of them nothing is noted."""
    if not asked.is_known:
        return memory
    tokens = asked.held_tokens(memory.rates.prompt_tokens or 0.0)
    return replace(memory, held=held.noted(memory.held, held.Held(now_s, asked.held, tokens)))


def held_inputs(asked: Asked, memory: Memory, now_s: float) -> dict[str, Input]:
    """Return what waits at gateways, by name with unit."""
    state = State.VALUE if asked.is_known else State.UNKNOWN
    return {
        "held at gateways, requests": Input(state, asked.held, now_s),
        "held at gateways, tokens": Input(state, asked.held_tokens(memory.rates.prompt_tokens or 0.0), now_s),
        "oldest held, s": Input(state, asked.oldest_s, now_s),
    }


def _levelled(memory: Memory, found: Sums, part: Part, elapsed_s: float, now_s: float) -> Memory:
    """Return the memory with what arrives now, at all groups alike: those that are not seen are taken to be as loaded.

    A partial sum may raise a level and never lowers it.
    """
    if found.is_idle:
        idle = trend.Arrivals(now_s, 0.0, 0.0, 0.0)
        levels = (0.0, 0.0, 0.0)
        return _with_levels(memory, levels, trend.noted(memory.arrivals, idle))
    requests = memory.requests_level if memory.requests_level is not None else found.arrivals.value / part.share

    def at(before: float | None, now: Input) -> float:
        value = now.value / part.share
        if not now.is_known and (before is None or value < before):
            return before or value
        return trend.level(before, value, requests, elapsed_s)

    levels = (
        at(memory.requests_level, found.arrivals),
        at(memory.prompt_level, found.prompt_arriving),
        at(memory.generated_level, found.generated),
    )
    history = memory.arrivals
    if found.are_known or part.lost:
        moment = trend.Arrivals(
            now_s,
            found.arrivals.value / part.share,
            found.prompt_arriving.value / part.share,
            found.running.value if found.are_known else None,
            max(memory.serving or 0, 0),
        )
        history = trend.noted(history, moment)
    return _with_levels(memory, levels, history)


def _with_levels(memory: Memory, levels: tuple[float, float, float], history: tuple[trend.Arrivals, ...]) -> Memory:
    return replace(
        memory, requests_level=levels[0], prompt_level=levels[1], generated_level=levels[2], arrivals=history
    )


def _credit(situation: Situation, memory: Memory, part: Part, now_s: float) -> Credit:
    """Return what there is for the load that is seen: groups that are lost have a load of their own."""
    serving = min(max(situation.serving, 0), situation.spec_groups)
    on_their_way = min(situation.spec_groups - serving, 10_000)
    cold_start_s = min(memory.starts.p95_s, law.LOOKAHEAD_MAX_S)
    return Credit(
        serving=max(serving - len(part.lost), 0),
        remaining_s=tuple(min(each, cold_start_s) for each in memory.starts.remaining(on_their_way, now_s)),
        cold_start_s=cold_start_s,
    )


def _loads(memory: Memory, found: Sums, part: Part, credit: Credit, now_s: float) -> tuple[Load, Load]:
    """Return the load that is seen now, and as it will be when a group that is ordered now serves."""
    requests, prompt = memory.requests_level or 0.0, memory.prompt_level or 0.0
    answer = memory.rates.answer_tokens or 0.0
    generated = memory.generated_level or 0.0
    if answer > 0.0:
        generated = max(requests * answer, min(generated, requests * answer * law.GENERATED_SHARE))
    now = Load(
        prompt_tokens=prompt * part.share,
        generated=generated * part.share,
        waiting_prompt_tokens=found.prompt_tokens.value,
        waiting_requests=found.waiting.value,
        running_requests=found.running.value,
        kv_tokens=found.kv_used.value,
    )
    growth = 1.0 + law.LOOKAHEAD_MAX_GROWTH

    def later(points: list[tuple[float, float]], level: float) -> float:
        rises = trend.rises(points, requests, now_s)
        return max(level, *(each.after(credit.cold_start_s, level * growth) for each in rises))

    of_prompts = later([(each.at_s, each.prompt_tokens) for each in memory.arrivals], prompt)
    of_answers = answer * later([(each.at_s, each.requests) for each in memory.arrivals], requests)
    ahead = replace(
        now,
        prompt_tokens=of_prompts * part.share,
        generated=max(now.generated, of_answers * part.share),
        running_requests=now.running_requests + min(_swollen(memory, credit, now_s), now.running_requests),
    )
    return now, ahead


def _swollen(memory: Memory, credit: Credit, now_s: float) -> float:
    """Return how many requests more will run when a group that is ordered now serves."""
    return trend.swell(memory.arrivals, now_s) * min(credit.cold_start_s, law.SWELL_MAX_S)


def _has_settled(memory: Memory, credit: Credit, now_s: float, settle_s: float) -> bool:
    """Whether the last new group has had time to help, and none is on its way.

    A new group gets every request until it has as many as the others, so the first that it serves are slow.
    """
    return not credit.remaining_s and (memory.grew_s is None or now_s - memory.grew_s >= settle_s)


def _boost(memory: Memory, kept: Promises, elapsed_s: float, *, can_help: bool, may_rise: bool) -> float:
    """Return the factor by which latencies raise the safety factor: up while a promise is missed, else back to 1."""
    if kept.worst is None and not kept.is_quiet:
        return memory.boost
    if kept.worst is not None and kept.is_missed and can_help:
        if not may_rise:
            return memory.boost
        more = law.BOOST_GAIN * min(kept.worst - 1.0, 1.0) * elapsed_s / 60.0
        return min(memory.boost + more, law.BOOST_MAX)
    return 1.0 + (memory.boost - 1.0) * exp(-elapsed_s / law.BOOST_DECAY_S)


def _inputs(
    found: Sums, needed: Demand, kept: Promises, credit: Credit, memory: Memory, boost: float
) -> dict[str, Input]:
    """Return every input of the decision, by its name with its unit."""
    at_s = found.arrivals.at_s

    def made(value: float | None) -> Input:
        """Return a number made from several inputs, which is as old as they are."""
        if value is None:
            return Input(State.UNKNOWN)
        if found.is_idle:
            return Input(State.IDLE if value == 0.0 else State.VALUE, value, at_s)
        return Input(found.arrivals.state, value, at_s)

    room = (memory.rates.kv_tokens or 0.0) * credit.serving
    measured = {
        "prefill rate, tokens/s a group": memory.rates.prefill_tokens_per_s,
        "answer length, tokens": memory.rates.answer_tokens,
        "latency against its promise, ratio": kept.worst,
    }
    return {
        "requests running": found.running,
        "requests waiting": found.waiting,
        "oldest waiting, s": found.oldest_s,
        "arrivals, requests/s": found.arrivals,
        "prompt tokens arriving, tokens/s": found.prompt_arriving,
        "tokens generated, tokens/s": found.generated,
        "KV use, %": replace(found.kv_used, value=100.0 * found.kv_used.value / room) if room else Input(State.UNKNOWN),
        "prefill demand, groups": made(needed.prefill),
        "decode demand, groups": made(needed.decode),
        "backlog, s of work": made(needed.backlog_s),
        "needed, groups": made(needed.most),
        "cold start p95, s": Input(State.VALUE, credit.cold_start_s, memory.at_s),
        "safety factor by latency, ratio": Input(State.VALUE, boost, memory.at_s),
        **{
            name: Input(State.UNKNOWN) if value is None else Input(State.VALUE, value, memory.at_s)
            for name, value in measured.items()
        },
    }
