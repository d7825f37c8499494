"""From the points of all experiments to the costs of a step. Pure."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from statistics import mean, median

from glm_worker.engine.calibration.fit import fit, median_error
from glm_worker.engine.calibration.points import StepPoint
from glm_worker.engine.calibration.result import DecodeCost, EngineCosts, Measured, PrefillCost
from glm_worker.errors import EngineFailed
from glm_worker.messages import EngineLimits


def costs(points: Mapping[str, Sequence[StepPoint]], limits: EngineLimits) -> EngineCosts:
    """Return what was measured. points: by the name of the experiment; of equal steps of one the median counts.

    Raises EngineFailed if there is no step of either kind.
    """
    prefill, decode, mixed = _medians(points)
    if not prefill or not decode:
        raise EngineFailed(
            f"{len(prefill)} kinds of prefill and {len(decode)} of decode were measured; both are needed"
        )
    prefill_cost = _prefill_cost(prefill)
    decode_cost = _decode_cost(decode)
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


def _prefill_cost(points: Sequence[StepPoint]) -> PrefillCost:
    base_s, per_token_s, per_token_context_s = fit([((1, p.tokens, p.token_context), p.seconds) for p in points])
    return PrefillCost(base_s=base_s, per_token_s=per_token_s, per_token_context_s=per_token_context_s)


def _decode_cost(points: Sequence[StepPoint]) -> DecodeCost:
    base_s, per_sequence_s, per_context_token_s = fit([((1, p.rows, p.context), p.seconds) for p in points])
    return DecodeCost(base_s=base_s, per_sequence_s=per_sequence_s, per_context_token_s=per_context_token_s)


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
