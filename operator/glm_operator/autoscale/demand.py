"""How many groups the load asks for: absolute, from seconds of work and what one group was measured to do. Pure.

Nothing here depends on spec.replicas except what is on its way: groups that start will serve, and are credited. So
while pods pend the answer stays the same, however long the queue grows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log

from glm_operator.autoscale import constants as law
from glm_operator.autoscale.decision import Cause
from glm_operator.autoscale.estimate.held import Rise
from glm_operator.autoscale.estimate.promises import Promises
from glm_operator.autoscale.estimate.rates import Line, Rates
from glm_operator.autoscale.estimate.samples import believable
from glm_operator.autoscale.estimate.trend import stepped
from glm_operator.autoscale.signals import GroupSignals, Input, Signals, State

NO_RISE = Rise()  # where nothing is known of gateways


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What all groups show together, and what waits at gateways. A sum over groups of which one is not known is not
    known; it has what is known. What a silent gateway holds is in none of them, and makes none of them unknown."""

    running: Input
    waiting: Input
    oldest_s: Input
    prompt_tokens: Input  # that wait or are not yet computed
    kv_used: Input  # tokens in KV caches
    arrivals: Input  # requests a second
    prompt_arriving: Input  # tokens a second
    generated: Input  # tokens a second
    is_idle: bool  # fresh data of every group say that nothing runs, waits or arrives, and no gateway says otherwise

    @property
    def are_known(self) -> bool:
        every = (self.running, self.waiting, self.oldest_s, self.prompt_tokens, self.kv_used)
        return all(each.is_known for each in (*every, self.arrivals, self.prompt_arriving, self.generated))

    @property
    def shows_load(self) -> bool:
        """Whether any known part of the sums is load."""
        return any(each.value > 0.0 for each in (self.running, self.waiting, self.arrivals))


def sums(signals: Signals, now_s: float, mean_prompt: float = 0.0, rise: Rise = NO_RISE) -> Sums:
    """Return the sums over the expected groups at a unix time, with what waits at gateways.

    A request is at a gateway or at a worker, so none counts twice. mean_prompt: tokens that a request brings, where a
    gateway does not say it. rise: of what waits at gateways; that has arrived too.
    """
    stale = {
        name
        for name, each in signals.groups.items()
        if name in signals.stale or not -law.AHEAD_S <= now_s - each.at_s <= law.STALE_MAX_S
    }
    lost = _lost(signals, stale)
    fresh = [each for name, each in sorted(signals.groups.items()) if name in signals.expected and name not in stale]
    goes_on = any(not each.is_hung for each in fresh)

    def over(
        value: Callable[[GroupSignals], float | None],
        *fields: str,
        combine: Callable[[float, float], float] = float.__add__,
    ) -> Input:
        so_far, state, at_s = 0.0, lost, None
        for each in fresh:
            of_group = value(each)
            if of_group is None or not believable(of_group) or not each.missing.isdisjoint(fields):
                state = state or State.UNKNOWN
                continue
            if each.is_hung:
                state = state or State.UNKNOWN
            so_far = combine(so_far, float(of_group))
            at_s = each.at_s if at_s is None else min(at_s, each.at_s)
        return Input(state or State.VALUE, min(so_far, law.HUGE), at_s)

    found = {
        "running": over(lambda each: each.requests_running, "requests_running"),
        "waiting": over(lambda each: each.requests_waiting, "requests_waiting"),
        # Who waits for a group that hangs waits on, whoever else comes: that asks for one where no other group goes on.
        "oldest_s": over(
            lambda each: 0.0 if each.is_hung and goes_on else each.oldest_waiting_s, "oldest_waiting_s", combine=max
        ),
        "prompt_tokens": over(
            lambda each: each.prompt_tokens_waiting + each.prompt_tokens_left,
            "prompt_tokens_waiting",
            "prompt_tokens_left",
        ),
        "kv_used": over(_kv_used, "kv_usage", "kv_tokens"),
        "arrivals": over(lambda each: each.arrivals),
        "prompt_arriving": over(lambda each: each.prompt_tokens_arriving),
        "generated": over(lambda each: each.tokens_generated),
    }
    found["arrivals"], found["prompt_arriving"] = _stepped(found["arrivals"], found["prompt_arriving"], over)
    found["waiting"] = _more(found["waiting"], signals.asked.held)
    found["prompt_tokens"] = _more(found["prompt_tokens"], signals.asked.held_tokens(mean_prompt))
    found["oldest_s"] = replace(found["oldest_s"], value=max(found["oldest_s"].value, signals.asked.oldest_s))
    found["arrivals"] = _more(found["arrivals"], rise.requests)
    found["prompt_arriving"] = _more(found["prompt_arriving"], rise.prompt_tokens)
    is_idle = all(
        found[name].state is State.VALUE and found[name].value == 0.0
        for name in ("running", "waiting", "oldest_s", "arrivals")
    )
    if is_idle:
        found = {name: _idle(each) for name, each in found.items()}
    return Sums(is_idle=is_idle, **found)


def is_whole(group: GroupSignals) -> bool:
    """Whether a group shows all of its load."""
    flows = (group.arrivals, group.prompt_tokens_arriving, group.tokens_generated)
    return not group.is_hung and not group.missing and all(each is not None and believable(each) for each in flows)


def _lost(signals: Signals, stale: set[str]) -> State | None:
    """Return the state of every sum for the groups that show nothing. None: each shows something."""
    if not signals.expected or not signals.expected <= signals.groups.keys():
        return State.UNKNOWN
    return State.STALE if stale & signals.expected else None


def _stepped(
    arrivals: Input, prompts: Input, over: Callable[[Callable[[GroupSignals], float | None]], Input]
) -> tuple[Input, Input]:
    """Return what arrives, as the newest samples of all groups show it where it stepped up."""
    lately, prompts_lately = (
        over(lambda each: each.arrivals_lately),
        over(lambda each: each.prompt_tokens_arriving_lately),
    )
    requests = arrivals.value
    return (
        replace(arrivals, value=stepped(requests, lately.value, requests)),
        replace(prompts, value=stepped(prompts.value, prompts_lately.value, requests, law.NOISE)),
    )


def _more(found: Input, value: float) -> Input:
    return replace(found, value=min(max(found.value + value, 0.0), law.HUGE))


def _idle(found: Input) -> Input:
    return Input(State.IDLE, 0.0, found.at_s) if found.is_known and found.value == 0.0 else found


def _kv_used(group: GroupSignals) -> float:
    """Return the tokens in a group's cache. What waits for room in it is work, and counts there."""
    return min(group.kv_usage, 1.0) * group.kv_tokens


@dataclass(frozen=True, kw_only=True)
class Load:
    """What arrives, without noise: prompt tokens a second, tokens to generate a second; and what waits."""

    prompt_tokens: float
    generated: float
    waiting_prompt_tokens: float
    waiting_requests: float
    running_requests: float
    kv_tokens: float


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What there is, and what is on its way: groups that serve, and for each that starts the seconds until it does."""

    serving: int
    remaining_s: tuple[float, ...]
    cold_start_s: float

    @property
    def groups(self) -> int:
        return self.serving + len(self.remaining_s)

    @property
    def is_overdue(self) -> bool:
        """Whether a group should serve by now and does not: pods pend, and more of them would pend as well."""
        return 0.0 in self.remaining_s


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Groups that are needed, by what for, before any limit. Fractions are meant.

    needs: of what is known. careful: the most of them where what a group can do, as far as it is not measured yet, is
    taken to be less. is_known: nothing more can come from what is not known; only then fewer groups may be enough.
    """

    needs: Mapping[Cause, float]
    careful: float
    is_known: bool
    prefill: float | None = None  # groups that do nothing but prefill
    decode: float | None = None  # groups that do nothing but decode, at the largest batch
    backlog_s: float | None = None  # seconds of one group's work that wait
    kv: float | None = None  # groups whose KV cache would be full
    horizon_s: float = 0.0

    @property
    def most(self) -> float:
        return max(self.needs.values(), default=0.0)


@dataclass(frozen=True)
class Able:
    """What one group does, as far as it was measured. None: never.

    batch: most requests that it decodes at once.
    """

    prefill_tokens_per_s: float | None
    prompt_tokens: float | None
    answer_tokens: float
    line: Line | None
    batch: float

    @classmethod
    def of(cls, rates: Rates, growing_share: float, reach: float) -> "Able":
        """reach: how many times the largest batch that was seen it is taken to decode."""
        batch = rates.largest_batch * reach
        if rates.max_running:
            batch = min(batch, rates.max_running)
        if rates.kv_tokens and rates.sequence_tokens:
            batch = min(batch, rates.kv_tokens * law.KV_TARGET / rates.sequence_tokens)
        return cls(
            rates.prefill_tokens_per_s or None,
            rates.prompt_tokens,
            rates.answer_tokens or 0.0,
            rates.step_line(growing_share),
            max(batch, 1.0),
        )

    def prefill(self, tokens: float) -> float | None:
        """Return the seconds that prefill of so many tokens takes; of tokens a second, the groups it keeps busy."""
        return tokens / self.prefill_tokens_per_s if self.prefill_tokens_per_s else None

    def decode(self, tokens: float) -> float | None:
        """Return the same for generating tokens, at the largest batch."""
        return None if self.line is None else tokens * self.line.at(self.batch) / self.batch


def demand(
    load: Load,
    ahead: Load,
    is_known: bool,
    rates: Rates,
    kept: Promises,
    credit: Credit,
    use: float,
    boost: float,
    lost: int = 0,
) -> Demand:
    """Return how many groups are needed.

    load, ahead: now, and when a group that is ordered now would serve. use: share of a group's time that is planned
    for. boost: 1 or more, by how much latencies ask for more room; it keeps groups, and asks for more only while a
    promise is missed. lost: groups whose load is in neither; they have their share or carry nothing, and in both cases
    one more is needed for each. Monotone in both loads, in boost and 1/use.
    """
    horizon_s = _horizon(kept, credit.cold_start_s)
    hopeful = Able.of(rates, law.HOPEFUL, law.HUGE)
    careful = Able.of(rates, law.CAREFUL, law.BATCH_REACH)
    kv = load.kv_tokens / rates.kv_tokens if rates.kv_tokens else None
    needs = _needs(load, ahead, hopeful, kept, credit, use, boost if kept.is_missed else 1.0, horizon_s)
    if kv is not None:
        needs["KVCache"] = kv / law.KV_TARGET
    seats = load.running_requests / careful.batch if careful.line is not None else 0.0
    most = max(seats, *needs.values(), *_needs(load, ahead, careful, kept, credit, use, boost, horizon_s).values())
    works = load.prompt_tokens + load.waiting_prompt_tokens > 0.0
    is_measured = (
        (not works or hopeful.prefill_tokens_per_s is not None)
        and (load.generated == 0.0 or hopeful.line is not None)
        and (load.kv_tokens == 0.0 or kv is not None)
    )
    return Demand(
        needs={cause: min(groups + lost, float(law.MOST_GROUPS)) for cause, groups in needs.items()},
        careful=min(most + lost, float(law.MOST_GROUPS)),
        is_known=is_known and is_measured,
        prefill=hopeful.prefill(load.prompt_tokens),
        decode=hopeful.decode(load.generated),
        backlog_s=_backlog(load, hopeful) if is_measured else None,
        kv=kv,
        horizon_s=horizon_s,
    )


def held_need(held: float, prompt_tokens: float, rates: Rates, kept: Promises, cold_start_s: float) -> float:
    """Return the groups for requests that wait where there is no group: for their work, within the usual horizon.

    prompt_tokens: of all of them. Of what was never measured nothing is asked for; no backlog asks for more than it
    would from one group.
    """
    able = Able.of(rates, law.HOPEFUL, law.HUGE)
    load = Load(
        prompt_tokens=0.0,
        generated=0.0,
        waiting_prompt_tokens=prompt_tokens,
        waiting_requests=held,
        running_requests=0.0,
        kv_tokens=0.0,
    )
    return min(_backlog(load, able) / _horizon(kept, cold_start_s), 1.0 + law.BACKLOG_SHARE)


def arriving_need(load: Load, rates: Rates, kept: Promises, use: float) -> float:
    """Return the groups that are needed for what arrives alone."""
    return _steady(load, Able.of(rates, law.HOPEFUL, law.HUGE), kept, use)


def _needs(
    load: Load,
    ahead: Load,
    able: Able,
    kept: Promises,
    credit: Credit,
    use: float,
    boost: float,
    horizon_s: float,
) -> dict[Cause, float]:
    """Return the groups for what arrives, for what will arrive, and for what waits."""
    steady = _steady(load, able, kept, use)
    needs: dict[Cause, float] = {"Demand": steady}
    later = _steady(ahead, able, kept, max(use, law.LOOKAHEAD_USE))
    if ahead.running_requests > load.running_requests and able.line is not None:
        later = max(later, ahead.running_requests / able.batch)
    if later > steady:
        needs["Lookahead"] = later
    if boost > 1.0:
        needs["Latency"] = steady * boost
    arriving = (able.prefill(load.prompt_tokens) or 0.0) + (able.decode(load.generated) or 0.0)
    needs["Waiting"] = min(
        _cleared(_backlog(load, able), arriving, credit, horizon_s), max(steady, 1.0) * (1.0 + law.BACKLOG_SHARE)
    )
    return needs


def _steady(load: Load, able: Able, kept: Promises, use: float) -> float:
    """Return the groups for what arrives, so that time suffices and promises hold on average.

    With N groups, a share A/N of the time for prefill and d/N tokens a second each, a batch of
    n = d*base / (N - A - d*each) makes decode keep up, and the time between two tokens is
    (base + each*n) / (1 - A/N) = base*N / (N - A - d*each). So a promise L of it
    needs N >= (A + d*each) / (1 - base/L).
    """
    prefill = able.prefill(load.prompt_tokens) or 0.0
    needs = [(prefill + (able.decode(load.generated) or 0.0)) / use]
    each_s = 0.0 if able.line is None else able.line.each_s
    if able.line is not None and kept.itl_s is not None:
        room = 1.0 - able.line.base_s / kept.itl_s
        needs.append((prefill + load.generated * each_s) * law.ITL_ROOM / max(room, law.ITL_MIN_ROOM))
    if able.prefill_tokens_per_s and able.prompt_tokens and kept.ttft_s is not None:
        alone_s = able.prompt_tokens / able.prefill_tokens_per_s
        share = _queueing_use(alone_s, kept.ttft_s, kept.ttft_percentile)
        needs.append(prefill / share + load.generated * each_s)
    return max(needs)


def _queueing_use(alone_s: float, promise_s: float, percentile: int) -> float:
    """Return the share of its time that a group may prefill so that a percentile of TTFT holds.

    A single server with random arrivals and lengths: the wait has an exponential tail, with a mean of
    alone_s * share / (1 - share). The prompt itself is taken to be twice the mean.
    """
    room_s = promise_s - 2.0 * alone_s
    waits = room_s / (-log(1.0 - percentile / 100.0) * alone_s) if alone_s > 0.0 else law.HUGE
    share = waits / (1.0 + waits) if waits > 0.0 else 0.0
    return min(max(share, law.TTFT_MIN_USE), law.TTFT_MAX_USE)


def _horizon(kept: Promises, cold_start_s: float) -> float:
    """Return the seconds within which a backlog is worked off once new groups serve."""
    return max(law.HORIZON_TTFTS * kept.wait_s + cold_start_s, law.HORIZON_MIN_S)


def _backlog(load: Load, able: Able) -> float:
    """Return the seconds of one group's work that wait: prefill that is not done, and the answers of who waits."""
    answers = load.waiting_requests * able.answer_tokens
    return (able.prefill(load.waiting_prompt_tokens) or 0.0) + (able.decode(answers) or 0.0)


def _cleared(backlog_s: float, arriving: float, credit: Credit, horizon_s: float) -> float:
    """Return the groups with which the backlog is gone within the horizon after a group that is ordered now serves.

    arriving: groups that what arrives keeps busy. Groups that serve work until then, those that start from when they
    serve; so what they will do is not asked for again. While one is overdue, a backlog asks for no more than there are.
    """
    until_s = credit.cold_start_s + horizon_s
    left_s = backlog_s + (arriving - credit.serving) * until_s
    if left_s <= 0.0:
        return arriving + backlog_s / until_s
    groups = float(credit.serving)
    for remaining_s in sorted(credit.remaining_s):
        works_s = until_s - remaining_s  # horizon_s at least
        if left_s <= works_s:
            return groups + left_s / works_s
        left_s -= works_s
        groups += 1.0
    return groups if credit.is_overdue else groups + left_s / horizon_s
