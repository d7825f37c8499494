"""What a spec says of promises and scaling, and who has not heard of it. Pure.

Neither moves a group, so they count also where the rest of a spec is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.observe.report import GroupReport, slo_digest

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Promises:
    """spec.slo and spec.scaling, or why they cannot be read."""

    slo: Slo | None
    scaling: Scaling | None  # None: a person scales, or see scaling_fault
    slo_fault: Trouble | None = None
    scaling_fault: Trouble | None = None


def promises(body: Manifest) -> Promises:
    """Return what a GLMDeployment promises, and who scales it."""
    spec = body.get("spec") or {}
    slo, slo_fault = _read(Slo, spec, "slo")
    scaling, scaling_fault = _read(Scaling, spec, "scaling")
    return Promises(Slo() if slo is None and slo_fault is None else slo, scaling, slo_fault, scaling_fault)


@dataclass(frozen=True)
class Answer:
    """What became of promises that were put to a group."""

    group: str
    is_taken: bool = False
    refusal: str = ""  # what it said instead; empty: nothing, and the next pass puts them again


def lack(observed: Observed, reports: Mapping[str, GroupReport], promised: Promises) -> list[ObservedGroup]:
    """Return the groups whose workers measure by other promises than these, and can be told."""
    if promised.slo is None:
        return []
    wanted = {slo_digest(promised.slo.for_workers()), *([] if promised.slo.classes else [None])}
    asked = [(group, reports[group.name]) for group in observed.groups.values() if group.name in reports]
    return [
        group
        for group, report in asked
        if report.takes_slo and report.state != "draining" and report.slo_digest not in wanted
    ]


def _read(kind: type[Part], spec: Mapping[str, object], name: str) -> tuple[Part | None, Trouble | None]:
    if spec.get(name) is None:
        return None, None
    try:
        return kind.model_validate(spec[name]), None
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in ("spec", name, *first["loc"]))
        return None, Trouble(name, "InvalidSpec", f"{path}: {first['msg'].removeprefix('Value error, ')}")
