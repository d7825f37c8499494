"""Latency promises: read from a body, and matched to requests. Pure.

The operator makes the body and the same digest of it (docs/design/0007-autoscaling.md; tests/contract compares both).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from glm_edge.metrics.promises import DEFAULT_CLASS, SIGNALS
from glm_worker.errors import RequestRefused
from glm_worker.messages import Slo, SloClass

MAX_CLASSES = 8
MAX_BODY_BYTES = 64 * 2**10  # eight classes take 4 KiB at most
_SHORTEST_S, _LONGEST_S = 0.001, 3600.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")

_decoder = msgspec.json.Decoder(Slo)


class Headers(Protocol):
    """The headers of a request; a name may be there several times."""

    def getlist(self, key: str) -> list[str]: ...


class NoHeaders:
    """Headers of a request that has none."""

    def getlist(self, key: str) -> list[str]:  # noqa: ARG002 - the shape of Headers
        return []


def parse_slo(body: bytes) -> Slo:
    """Return the promises in a JSON body. Raises RequestRefused with a sentence about the first thing wrong with it."""
    try:
        slo = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(f"the body cannot be read as promises: {error}", status=422) from error
    for mistake in _mistakes(slo):
        raise RequestRefused(mistake, status=422)
    return slo


def slo_digest(slo: Slo) -> str:
    """Return 16 hexadecimal digits that stand for these promises: sha256 of their JSON in its one canonical form."""
    canonical = json.dumps(msgspec.to_builtins(slo), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def class_of(classes: Sequence[SloClass], *, thinking: bool, headers: Headers) -> SloClass | None:
    """Return the first class that matches a request, or None when none does. thinking: as resolved for it."""
    mode = "enabled" if thinking else "disabled"
    for each in classes:
        if each.thinking not in ("any", mode):
            continue
        if each.header is None or each.header.value in headers.getlist(each.header.name):
            return each
    return None


def _mistakes(slo: Slo) -> Iterable[str]:
    if len(slo.classes) > MAX_CLASSES:
        yield f"there are {len(slo.classes)} classes; at most {MAX_CLASSES} are allowed"
    names = [each.name for each in slo.classes]
    for each in slo.classes:
        if each.name == DEFAULT_CLASS:
            yield f"the class name {DEFAULT_CLASS} is taken: it is for the requests that no class matches"
        if _NAME.fullmatch(each.name) is None:
            yield (
                f"the class name {each.name[:64]!r} is wrong; allowed are 1 to 32 lower-case letters, digits and"
                " dashes, with a letter or digit at both ends"
            )
        if names.count(each.name) > 1:
            yield f"class {each.name} is there twice; names must differ"
        yield from _mistakes_of_class(each)


def _mistakes_of_class(each: SloClass) -> Iterable[str]:
    if not each.thresholds_s:
        yield f"class {each.name} promises nothing; give it at least one of {', '.join(SIGNALS)} in thresholds_s"
    for signal, seconds in each.thresholds_s.items():
        if not _SHORTEST_S <= seconds <= _LONGEST_S:
            yield (
                f"{signal} of class {each.name} is {seconds:g} s; allowed is {_SHORTEST_S:g} to {_LONGEST_S:g} seconds"
            )
    if not 0 < each.objective < 1:
        yield f"objective of class {each.name} is {each.objective:g}; allowed is a share between 0 and 1, as in 0.99"
    if each.header is not None and _HEADER_NAME.fullmatch(each.header.name) is None:
        yield f"header {each.header.name[:64]!r} of class {each.name} is no name of a header, as in x-tier"
    if each.header is not None and _HEADER_VALUE.fullmatch(each.header.value) is None:
        yield (
            f"the value of header {each.header.name} of class {each.name} is wrong; allowed are 1 to 128 visible ASCII"
            " characters, with spaces between them only"
        )
