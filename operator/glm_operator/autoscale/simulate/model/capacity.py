"""What a group can carry in a steady state, from its calibration alone. Pure.

The judge's measure of need, and what laws that profile an engine beforehand know of it. Our law does not use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glm_operator.api.slo import Slo
from glm_operator.autoscale.simulate.model.calibration import Calibration
from glm_operator.autoscale.simulate.trace import Arrival

_KV_SHARE = 0.95  # of the cache that fills before somebody is kept waiting


@dataclass(frozen=True)
class Shape:
    """Requests of one kind, as numbers of tokens. held: in the KV cache, on the mean over a request's decoding."""

    prompt: float
    output: float
    held: float


def shape_of(arrivals: Sequence[Arrival]) -> Shape:
    """Return the shape of at least one request. Long answers hold their tokens for longer, and count for longer."""
    count = len(arrivals)
    prompt = sum(each.prompt_tokens for each in arrivals) / count
    output = sum(each.output_tokens for each in arrivals) / count
    held = sum(each.output_tokens * (each.prompt_tokens + each.output_tokens / 2) for each in arrivals)
    return Shape(prompt, output, held / sum(each.output_tokens for each in arrivals))


def requests_per_second(calibration: Calibration, shape: Shape, itl_s: float | None) -> float:
    """Return the rate at which a group is full: no seat, KV cache, time for prefill or promised gap is left."""
    held = shape.held + calibration.block_size / 2
    most = min(calibration.max_num_seqs, int(_KV_SHARE * calibration.kv_tokens / held))
    prefill_s = calibration.prefill_s(round(shape.prompt), shape.prompt * shape.prompt / 2)
    best = 0.0
    for sequences in range(1, max(1, most) + 1):
        step_s = calibration.decode_base_s + calibration.decode_s(sequences, sequences * shape.held)
        rate = sequences / (max(1.0, shape.output) * step_s + sequences * prefill_s)
        gap_s = sequences / (rate * max(1.0, shape.output))
        if itl_s is not None and gap_s > itl_s and best:
            break
        best = rate
    return best


def tightest(slo: Slo, signal: str) -> float | None:
    """Return the smallest promise of any class for a signal; None where none makes one."""
    found = [limit for each in slo.classes for name, limit in each.thresholds.items() if name == signal]
    return min(found, default=None)
