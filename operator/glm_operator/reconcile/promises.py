"""What a spec says of promises, scaling and the policy of requests, and who has not heard of it. Pure.

None of them moves a group, so they count also where the rest of a spec is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from glm_operator.api.fields import as_read_by_the_api_server
from glm_operator.api.policy import Policy
from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.manifest import Manifest
from glm_operator.observe.observed import Observed, ObservedGroup
from glm_operator.observe.report import GroupReport, policy_digest, slo_digest

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Promises:
    """spec.slo, spec.scaling, spec.reasoning with spec.access, or why they cannot be read."""

    slo: Slo | None
    scaling: Scaling | None  # None: a person scales, or see scaling_fault
    slo_fault: Trouble | None = None
    scaling_fault: Trouble | None = None
    policy: Policy | None = None
    policy_fault: Trouble | None = None


def promises(body: Manifest) -> Promises:
    """Return what a GLMDeployment promises, who scales it, and how it wants requests to be treated."""
    spec = body.get("spec") or {}
    slo, slo_fault = _read(Slo, spec.get("slo"), "slo")
    scaling, scaling_fault = _read(Scaling, spec.get("scaling"), "scaling")
    of_policy = {part: spec[part] for part in Policy.model_fields if spec.get(part) is not None}
    policy, policy_fault = _read(Policy, of_policy)
    return Promises(
        slo=Slo() if slo is None and slo_fault is None else slo,
        scaling=scaling,
        slo_fault=slo_fault,
        scaling_fault=scaling_fault,
        policy=policy,
        policy_fault=policy_fault,
    )


@dataclass(frozen=True)
class Answer:
    """What became of promises or a policy that was put to a group."""

    group: str
    is_taken: bool = False
    refusal: str = ""  # what it said instead; empty: nothing, and the next pass puts them again


def lack(observed: Observed, reports: Mapping[str, GroupReport], promised: Promises) -> list[ObservedGroup]:
    """Return the groups whose workers measure by other promises than these, and can be told."""
    if promised.slo is None:
        return []
    wanted = {slo_digest(promised.slo.for_workers()), *([] if promised.slo.classes else [None])}
    heard = _heard(observed, reports)
    return [group for group, report in heard if report.takes_slo and report.slo_digest not in wanted]


def lack_policy(observed: Observed, reports: Mapping[str, GroupReport], promised: Promises) -> list[ObservedGroup]:
    """Return the groups whose workers treat requests by another policy than this, and can be told."""
    if promised.policy is None:
        return []
    wanted, is_default = policy_digest(promised.policy.for_workers()), promised.policy.is_default
    heard = _heard(observed, reports)
    return [group for group, each in heard if each.takes_policy and not each.has_policy(wanted, is_default=is_default)]


def _heard(observed: Observed, reports: Mapping[str, GroupReport]) -> list[tuple[ObservedGroup, GroupReport]]:
    """Return the groups that have said something and do not drain."""
    found = [(group, reports[group.name]) for group in observed.groups.values() if group.name in reports]
    return [(group, report) for group, report in found if report.state != "draining"]


def _read(kind: type[Part], part: object, name: str = "") -> tuple[Part | None, Trouble | None]:
    if part is None:
        return None, None
    try:
        return kind.model_validate(as_read_by_the_api_server(part)), None
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(step) for step in ("spec", *filter(None, (name,)), *first["loc"]))
        return None, Trouble(name or "policy", "InvalidSpec", f"{path}: {first['msg'].removeprefix('Value error, ')}")
