"""The records of accepted specs: ControllerRevisions, one for each spec that was ever laid out. Pure.

Why: a bad edit must leave running groups and their repair untouched, also when the operator restarts and can no longer
remember the good spec. The data of a ControllerRevision cannot change, so each accepted spec has its own; the number
of wanted groups is no part of it and is kept in an annotation: scaling works, too, while the newest spec is refused.
"""

from collections.abc import Iterable

from pydantic import ValidationError

from glm_operator import names
from glm_operator.api.spec import GLMDeployment, GLMDeploymentSpec
from glm_operator.layout import Layout, plan
from glm_operator.manifest import Manifest, hash_of
from glm_operator.observe.observed import Observed, Record
from glm_operator.render.labels import labels
from glm_operator.rollout.steps import Target

KEPT = 5
"""Records kept besides those a group still runs: enough to see what was there before."""


def latest(records: Iterable[Record]) -> Record | None:
    """Return the record of the spec accepted last."""
    return max(records, key=lambda record: record.number, default=None)


def name_of_spec(deployment: GLMDeployment) -> str:
    """Return the name of the record of a deployment's spec."""
    return names.record_name(deployment.name, hash_of(deployment.spec.normal_form()))


def record(target: Target, records: tuple[Record, ...]) -> Manifest:
    """Return the record of the target's spec. An older one of the same spec is numbered anew: it is the last again."""
    spec = target.deployment.spec.normal_form()
    name = name_of_spec(target.deployment)
    last = latest(records)
    number = (last.number if last.name == name else last.number + 1) if last is not None else 1
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": target.deployment.namespace,
            "labels": {
                **labels(target.deployment.name, "record"),
                names.RECORD_LABEL: "true",
                names.REVISION_LABEL: target.revision,
            },
            "annotations": {names.REPLICAS_ANNOTATION: str(target.replicas)},
        },
        "data": spec,
        "revision": number,
    }


def surplus(observed: Observed, current: str) -> list[str]:
    """Return the names of the records to delete: not current, not among the last, and no group runs their revision."""
    in_use = {group.revision for group in observed.groups.values()}
    newest = sorted(observed.records, key=lambda record: -record.number)
    return [record.name for record in newest[KEPT:] if record.name != current and record.revision not in in_use]


def restore(body: Manifest, observed: Observed) -> Target | None:
    """Return the last accepted spec as a target, or None if there is none that this version still understands.

    Of the newest spec only the number of groups counts, where that is a possible one: scaling is no new spec.
    """
    last = latest(observed.records)
    if last is None:
        return None
    recorded = last.replicas if last.replicas is not None else 1 + max(observed.groups, default=-1)
    return _target(body, last, _wanted_now(body)) or _target(body, last, recorded)


def _wanted_now(body: Manifest) -> int | None:
    spec = body.get("spec")
    replicas = spec.get("replicas") if isinstance(spec, dict) else None
    return replicas if type(replicas) is int else None


def _target(body: Manifest, record: Record, replicas: int | None) -> Target | None:
    try:
        spec = GLMDeploymentSpec.model_validate({**record.spec, "replicas": replicas})
        deployment = GLMDeployment.model_validate({"metadata": body["metadata"], "spec": spec})
    except ValidationError:
        return None
    layout = plan(deployment)
    return Target.of(deployment, layout) if isinstance(layout, Layout) else None
