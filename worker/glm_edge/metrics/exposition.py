"""Metric families as the text that Prometheus reads, each series with the labels that say whose it is.

prometheus_client writes the same text (a test compares) in several times as long, which with eight classes is as long
as steps of a small model: the server writes between the tokens of its streams. Here the start of each line is kept.
"""

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

_MOST_KEPT = 20_000  # starts of lines: many times those of eight classes; changes of classes leave some behind


def without_created(families: Iterable[Metric]) -> list[Metric]:
    """Return families without their `_created` series: nobody asks when a counter began."""
    kept = list(families)
    for family in kept:
        family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return kept


def go_float(value: float) -> str:
    """Write a number as Prometheus does, also where it is the label of an edge."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


class Exposition:
    """Writes pages. identity: labels that every series gets."""

    def __init__(self, identity: Mapping[str, str]) -> None:
        self._identity = dict(identity)
        self._starts: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}

    def text(self, families: Iterable[Metric]) -> str:
        """Return families of counters, gauges and histograms as Prometheus text."""
        if len(self._starts) > _MOST_KEPT:
            self._starts.clear()
        parts: list[str] = []
        for family in families:
            name = family.name + ("_total" if family.type == "counter" else "")
            text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
            parts.append(f"# HELP {name} {text}\n# TYPE {name} {family.type}\n")
            parts += [f"{self._start(sample)} {go_float(sample.value)}\n" for sample in family.samples]
        return "".join(parts)

    def _start(self, sample: Sample) -> str:
        """Return a line up to its value."""
        key = (sample.name, tuple(sample.labels.items()))
        start = self._starts.get(key)
        if start is None:
            labels = sorted({**self._identity, **sample.labels}.items())
            written = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
            start = self._starts[key] = f"{sample.name}{{{written}}}" if written else sample.name
        return start


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
