"""From the points of all experiments to the costs of a step. Pure."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from statistics import mean, median

from glm_worker.engine.calibration.fit import fit, median_error
from glm_worker.engine.calibration.points import StepPoint
from glm_worker.engine.calibration.result import DecodeCost, EngineCosts, Measured, PrefillCost
from glm_worker.errors import EngineFailed
from glm_worker.messages import EngineLimits

_TRIES = 4  # of two choices; more than two only where both bases are about equal
_PARTS = 20  # of the steps, by their context: where far context may begin
_GAIN = 0.95  # of the error of a fit without far context
_EXACT = 0.003  # of all seconds: no better fit is wanted


def costs(points: Mapping[str, Sequence[StepPoint]], limits: EngineLimits) -> EngineCosts:
    """Return what was measured. points: by the name of the experiment. `measured` shows equal steps as their median.

    Raises EngineFailed if there is no step of either kind.
    """
    prefill, decode, mixed = _medians(points)
    if not prefill or not decode:
        raise EngineFailed(
            f"{len(prefill)} kinds of prefill and {len(decode)} of decode were measured; both are needed"
        )
    prefill_cost, decode_cost = _fitted([point for of_experiment in points.values() for point in of_experiment])
    measured = Measured(
        prefill=[(p.tokens, p.token_context, p.seconds) for p in prefill],
        decode=[(p.rows, p.context, p.seconds) for p in decode],
        mixed=[(p.tokens, p.token_context, p.rows, p.context, p.seconds) for p in mixed],
        errors={
            kind: median_error([(step_s(prefill_cost, decode_cost, point), point.seconds) for point in of_kind])
            for kind, of_kind in (("prefill", prefill), ("decode", decode), ("mixed", mixed))
        },
    )
    return EngineCosts(
        prefill=prefill_cost,
        decode=decode_cost,
        kv_tokens=limits.num_blocks * limits.block_size,
        block_size=limits.block_size,
        max_model_len=limits.max_model_len,
        measured=measured,
    )


def step_s(prefill: PrefillCost, decode: DecodeCost, point: StepPoint) -> float:
    """Return the seconds of a step by the costs. One that does both takes the larger base once."""
    base_s = max(prefill.base_s if point.tokens else 0.0, decode.base_s if point.rows else 0.0)
    prefill_s = prefill.seconds(point.tokens, point.token_context) - prefill.base_s
    decode_s = decode.seconds(point.rows, point.context) - decode.base_s
    return base_s + prefill_s + decode_s


def _fitted(points: Sequence[StepPoint]) -> tuple[PrefillCost, DecodeCost]:
    """Return the costs that explain steps of all kinds together; most steps under load are of both kinds.

    Where far context begins is tried, too; it is told only where that explains the steps clearly better.
    """
    plain = _fitted_near(points, math.inf)
    contexts = sorted(point.context for point in points if point.rows)
    total_s = sum(point.seconds for point in points)
    best, least_s = plain, _GAIN * _off_s(plain, points)
    if least_s > _EXACT * total_s:
        for near in sorted({contexts[len(contexts) * part // _PARTS] for part in range(_PARTS // 2, _PARTS - 1)}):
            tried = _fitted_near(points, near)
            if (off_s := _off_s(tried, points)) < least_s:
                best, least_s = tried, off_s
    return best


def _off_s(costs: tuple[PrefillCost, DecodeCost], points: Sequence[StepPoint]) -> float:
    """Return how many seconds the costs are off, all points together."""
    return sum(abs(step_s(*costs, point) - point.seconds) for point in points)


def _fitted_near(points: Sequence[StepPoint], near: float) -> tuple[PrefillCost, DecodeCost]:
    """Return the costs with this for near_context_tokens; infinity: no context is far.

    Which base is the larger one, and so that of steps of both kinds, is known only after a fit: it is tried until it
    holds.
    """
    is_prefill_larger = True
    for _ in range(_TRIES):
        found = fit([(_factors(point, near, is_prefill_larger=is_prefill_larger), point.seconds) for point in points])
        if is_prefill_larger == (found[0] >= found[3]):
            break
        is_prefill_larger = not is_prefill_larger
    prefill_base_s, per_token_s, per_token_context_s, base_s, per_sequence_s, per_context_token_s, per_far_token_s = (
        found
    )
    return (
        PrefillCost(base_s=prefill_base_s, per_token_s=per_token_s, per_token_context_s=per_token_context_s),
        DecodeCost(
            base_s=base_s,
            per_sequence_s=per_sequence_s,
            per_context_token_s=per_context_token_s,
            near_context_tokens=near if per_far_token_s else 0.0,
            per_far_token_s=per_far_token_s,
        ),
    )


def _factors(point: StepPoint, near: float, *, is_prefill_larger: bool) -> tuple[float, ...]:
    has_both = bool(point.tokens and point.rows)
    prefill_bases = int(is_prefill_larger if has_both else bool(point.tokens))
    far = max(0.0, point.context - near)
    return (prefill_bases, point.tokens, point.token_context, 1 - prefill_bases, point.rows, point.context, far)


def _medians(points: Mapping[str, Sequence[StepPoint]]) -> tuple[list[StepPoint], list[StepPoint], list[StepPoint]]:
    """Return one point for all alike, of steps that only prefill, only decode, or do both."""
    kinds: tuple[dict[Hashable, list[StepPoint]], ...] = (defaultdict(list), defaultdict(list), defaultdict(list))
    for name, of_experiment in points.items():
        for point in of_experiment:
            if point.tokens and point.rows:
                kinds[2][name, point.tokens, point.rows].append(point)
            elif point.tokens:
                kinds[0][name, point.tokens, point.token_context].append(point)
            elif point.rows:
                kinds[1][name, point.rows].append(point)
    prefill, decode, mixed = ([_median(alike) for alike in kind.values()] for kind in kinds)
    return prefill, decode, mixed


def _median(points: Sequence[StepPoint]) -> StepPoint:
    return StepPoint(
        began_s=points[0].began_s,
        seconds=median(p.seconds for p in points),
        is_followed=True,
        tokens=points[0].tokens,
        token_context=mean(p.token_context for p in points),
        rows=points[0].rows,
        context=round(mean(p.context for p in points)),
    )
