"""What goes wrong between groups and whoever reads their metrics. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[float, float]
"""Seconds of the simulation, from and to."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Faults of one run."""

    lost_share: float = 0.0  # of scrapes, at random
    away: tuple[Span, ...] = ()  # Prometheus neither scrapes nor answers
    frozen: tuple[Span, ...] = ()  # the oldest group shows the same values again and again, freshly scraped
    silent: tuple[Span, ...] = ()  # no scrape of the oldest group succeeds; it serves all the same

    @property
    def name(self) -> str:
        names = [
            name
            for name, is_on in (
                ("lost", self.lost_share > 0),
                ("away", bool(self.away)),
                ("frozen", bool(self.frozen)),
                ("silent", bool(self.silent)),
            )
            if is_on
        ]
        return "+".join(names) or "none"


NO_FAULTS = Faults()


def is_within(spans: Sequence[Span], now_s: float) -> bool:
    return any(begin <= now_s < end for begin, end in spans)
