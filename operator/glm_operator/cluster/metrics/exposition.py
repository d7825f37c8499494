"""Prometheus' text format, as far as workers write it: the wanted lines, parsed quickly. Pure.

The parser of prometheus_client takes some 60 us a line, which is seconds for 300 groups. Here a series is parsed when
it is first seen; afterwards a line costs a look into a dictionary.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

_LINE = re.compile(
    r"(?P<series>(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    r'(?:\{(?P<labels>(?:[^"{}]|"(?:[^"\\]|\\.)*")*)\})?)'
    r"[ \t]*(?<=[ \t}])(?P<value>[^ \t]+)(?:[ \t]+(?P<time>-?[0-9]+))?[ \t]*"
)
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(?:,|$)')
_ESCAPED = re.compile(r"\\(.)")
_PLAIN = {"n": "\n"}
_MAX_QUOTED = 100


class MalformedText(ValueError):
    """A text that is no exposition. Says which line."""


@dataclass(frozen=True)
class SeriesName:
    """What identifies a series within a text: the metric's name as exposed, `_bucket` and `_total` included."""

    name: str
    labels: Mapping[str, str]


Known = dict[str, SeriesName]
"""Series by how a text writes them. Kept for the next text of the same worker."""


def read_exposition(text: str, wanted: Collection[str], known: Known) -> Iterator[tuple[str, SeriesName, float]]:
    """Yield the samples of the wanted metrics: the series as written, what it is, its value.

    Times in the text are ignored: a sample is as old as its scrape. Raises MalformedText.
    """
    for line in text.split("\n"):  # not splitlines(): a label may hold what that takes for the end of a line
        end = line.find("{")
        if (line[:end] if end > 0 else line.split(None, 1)[0] if line.strip() else "") not in wanted:
            continue
        written, _, value = line.rpartition(" ")
        series = known.get(written)
        if series is None:
            if (match := _LINE.fullmatch(line)) is None:
                raise MalformedText(f"line {_quoted(line)} is no sample")
            series = SeriesName(match["name"], _read_labels(match["labels"] or "", line))
            value = match["value"]
            if match["series"] == written:  # not so with a time or with more than one space
                known[written] = series
            else:
                written = match["series"]
        try:
            yield written, series, float(value)
        except ValueError:
            raise MalformedText(f"line {_quoted(line)} has no number") from None


def _read_labels(text: str, line: str) -> dict[str, str]:
    labels, at = {}, 0
    while at < len(text):
        if (match := _LABEL.match(text, at)) is None:
            raise MalformedText(f"line {_quoted(line)} has labels that cannot be read")
        labels[match[1]] = _ESCAPED.sub(lambda found: _PLAIN.get(found[1], found[1]), match[2])
        at = match.end()
    return labels


def _quoted(line: str) -> str:
    """Return the beginning of a line as it is reported: it comes from a pod, and may be of any length."""
    return repr(line[:_MAX_QUOTED]) + ("..." if len(line) > _MAX_QUOTED else "")
