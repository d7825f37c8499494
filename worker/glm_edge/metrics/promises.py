"""What is promised of a request's times, whether that was kept, and the edges of histograms that tell it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Signal = Literal["ttft", "ttfa", "itl", "e2e"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)

DEFAULT_CLASS = "default"
"""Label of the requests that no class matches. They are measured, and promised nothing."""

TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
# vLLM's, and finer ones below 10 ms
ITL_BUCKETS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
LATENCY_BUCKETS = (
    0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """The times of a request that has ended, in seconds; None where it never came to that."""

    ttft: float | None
    ttfa: float | None
    itl: float | None  # the mean of its gaps; None: it has fewer than two tokens
    e2e: float


def is_met(thresholds_s: Mapping[Signal, float], measured: Latencies) -> bool:
    """Tell whether a request that has finished was as fast as promised, in every signal that has a threshold.

    A first token or first answer token that never came is judged by the whole time: until its end the client waited
    for it in vain. An answer of one token has no gaps, and so none that was too long.
    """
    seconds: dict[Signal, float] = {
        "ttft": measured.e2e if measured.ttft is None else measured.ttft,
        "ttfa": measured.e2e if measured.ttfa is None else measured.ttfa,
        "itl": 0.0 if measured.itl is None else measured.itl,
        "e2e": measured.e2e,
    }
    return all(seconds[signal] <= threshold_s for signal, threshold_s in thresholds_s.items())


def is_missed(thresholds_s: Mapping[Signal, float], *, ttft: float | None, ttfa: float | None, age_s: float) -> bool:
    """Tell whether a promise to a request cannot be kept any more, at its age and with the times known by then."""
    seconds: dict[Signal, float] = {
        "ttft": age_s if ttft is None else ttft,
        "ttfa": age_s if ttfa is None else ttfa,
        "e2e": age_s,
    }
    return any(seconds[signal] > threshold_s for signal, threshold_s in thresholds_s.items() if signal in seconds)


def bucket_edges(base: Iterable[float], threshold_s: float | None) -> tuple[float, ...]:
    """Return the edges of a histogram: the usual ones, and the threshold, its half and its double."""
    own = () if threshold_s is None else (threshold_s / 2, threshold_s, threshold_s * 2)
    return tuple(sorted({*base, *own}))
