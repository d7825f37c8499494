"""A dashboard before it is Grafana's: rows of panels, each with its lines."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from grafana.lines import Line

Kind = Literal["curve", "number", "states", "bars"]
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
Step = tuple[float | None, str]
"""From which value on it has which colour; the first is None."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One question and its answer. unit is Grafana's name of it."""

    title: str
    text: str  # what it shows, and what to think of it
    lines: tuple[Line, ...]
    kind: Kind = "curve"
    unit: str = "short"
    width: int = 8  # of 24
    height: int = 8
    steps: tuple[Step, ...] = ()
    low: float | None = 0.0
    high: float | None = None
    decimals: int | None = None
    runbook: str | None = None  # the alert that is about it
    nothing: str = "no data"  # shown where there is none
    names: dict[str, str] = field(default_factory=dict)  # what a value is called: "1": "yes"
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels that answer one question together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    slug: str  # the name of its file, and the end of its uid
    title: str
    text: str
    rows: tuple[Row, ...]
    variables: tuple[str, ...]
    has_decisions: bool = True  # decisions of the autoscaler as annotations

    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row.panels
