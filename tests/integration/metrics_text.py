"""Reading single values out of a page of metrics."""

import re

_LABEL = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


def series_values(text: str, series: str) -> list[float]:
    """Return the values of the series of a name that have these labels, whatever others they have.

    series: a name as exposed, or one with labels, as in name{label="value"}.
    """
    name, labels = _parts(series)
    found = []
    for line in text.splitlines():
        start, _, value = line.rpartition(" ")
        if line.startswith("#") or not line.startswith(name):
            continue
        its_name, its_labels = _parts(start)
        if its_name == name and labels.items() <= its_labels.items():
            found.append(float(value))
    return found


def series_value(text: str, series: str) -> float:
    """Return the value of the only series that matches."""
    values = series_values(text, series)
    assert len(values) == 1, f"{len(values)} series match {series} in:\n{text}"
    return values[0]


def _parts(series: str) -> tuple[str, dict[str, str]]:
    name, _, labels = series.partition("{")
    return name, dict(_LABEL.findall(labels))
