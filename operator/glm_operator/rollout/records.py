"""What is kept of accepted specs: ControllerRevisions with the spec, the template rendered from it and its image. Pure.

Why: a bad edit must leave running groups and their repair untouched, also when the operator restarts and can no longer
remember the good spec; and an operator of another version, which would render the same spec differently, must move no
group. So groups come back from the template that was kept, and a newer rendering is taken only when somebody adopts it.

The data of a ControllerRevision cannot change, so each accepted spec and each adopted rendering has its own. The
number of wanted groups is no part of it and is kept in an annotation: scaling works while the newest spec is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from glm_operator import names
from glm_operator.api.fields import as_read_by_the_api_server
from glm_operator.api.spec import MOVES_NOTHING, GLMDeployment, GLMDeploymentSpec, Rollout
from glm_operator.layout import Layout, plan
from glm_operator.manifest import Manifest, hash_of
from glm_operator.observe.observed import Observed, Record
from glm_operator.render import group_template, revision_of, speaks_tls, template_of
from glm_operator.render.labels import labels
from glm_operator.rollout.target import Target

KEPT = 5
"""Records kept besides those a group still runs: enough to see what was there before, and to go back to it."""


def latest(records: Iterable[Record]) -> Record | None:
    """Return the record of the spec accepted last."""
    return max(records, key=lambda record: record.number, default=None)


def accept(
    deployment: GLMDeployment,
    layout: Layout,
    observed: Observed,
    *,
    wanted: str = "",
    newest_then: str = "",
    adopts: bool = False,
    has_tls: bool = False,
) -> Target:
    """Return where the groups of a spec go: to what is kept of it, or, if nothing is, to what is rendered now.

    wanted: the revision that somebody asked for by name, of this very spec; it may also be the newer rendering.
    newest_then: the newest rendering that there was then; empty: nobody knows. adopts: the newer rendering is taken,
    unless somebody asked for another one who knew it, or may have. has_tls: as what is rendered now speaks; what is
    kept speaks as it did, unless nobody could ask it any more.
    """
    template = group_template(deployment, layout, has_tls=has_tls)
    fresh, kept, last = revision_of(template), templates(observed), latest(observed.records)
    alike = [record for record in observed.records if record.revision in kept and is_of(record, deployment)]
    of_this_spec = [
        record
        for record in alike
        if record is last or has_tls or not speaks_tls(kept[record.revision]["spec"]["template"])
    ]
    passed_over = {record.revision for record in alike} - {record.revision for record in of_this_spec}
    of_this_spec = of_this_spec or _without_records(deployment, observed, kept)
    asked = latest(record for record in of_this_spec if record.revision == wanted)
    if adopts and newest_then not in ("", fresh):
        asked = None  # who asked did not know what is rendered now
    record = asked or latest(of_this_spec)
    takes_newer = record is not None and record.revision != fresh and (wanted == fresh or (adopts and asked is None))
    common: dict[str, Any] = {
        "name": deployment.name,
        "namespace": deployment.namespace,
        "replicas": deployment.spec.replicas,
        "policy": deployment.spec.rollout,
        "progress_deadline_s": deployment.spec.progress_deadline_s,
        "layout": layout,
        "proven": _proven(observed),
        "passed_over": wanted if wanted in passed_over else "",
    }
    if record is None or takes_newer:
        found = latest(record for record in of_this_spec if record.revision == fresh)
        return Target(
            **common,
            revision=fresh,
            spec=found.spec if found is not None else deployment.spec.normal_form(),
            image=deployment.image,
            templates={**kept, fresh: template},
            serving=_serving(observed, fresh),
            is_adopted=takes_newer,
            is_adoption=takes_newer and last in of_this_spec,
        )
    return Target(
        **common,
        revision=record.revision,
        spec=record.spec if record.template is not None else deployment.spec.normal_form(),
        image=_image_of(record) or deployment.image,
        templates={**kept, fresh: template},
        newer_revision=fresh if fresh != record.revision else None,
        serving=_serving(observed, record.revision),
        is_adopted=record.is_adopted,
        is_adoption=record.is_adopted and record.revision == fresh and record != last and last in of_this_spec,
        is_pinned=asked is not None and fresh != record.revision,
    )


def _without_records(deployment: GLMDeployment, observed: Observed, kept: Mapping[str, Manifest]) -> list[Record]:
    """Return what stands for a record where none is left: what the groups are made from, if they are all alike."""
    running = {group.revision for group in observed.groups.values() if group.exists}
    if observed.records or len(running) != 1 or not running <= kept.keys():
        return []
    (revision,) = running
    spec = deployment.spec.normal_form()
    return [Record("", 0, spec, revision, replicas=None, template=kept[revision], image=_image_in(kept[revision]))]


def restore(body: Manifest, observed: Observed) -> Target | None:
    """Return the last accepted spec as a target, from what is kept of it; None if nothing ever was accepted.

    Of the newest spec only what moves no group counts, where it is possible: scaling is no new spec. This version need
    not understand the record: its template says all that a group is made from.
    """
    last, kept = latest(observed.records), templates(observed)
    if last is None or last.revision not in kept:
        return _restored_from_spec(body, observed, last) if last is not None else None
    spec = _parsed(last.spec)
    return _restored(body, observed, last, kept, spec)


def _restored(
    body: Manifest, observed: Observed, last: Record, kept: Mapping[str, Manifest], spec: GLMDeploymentSpec | None
) -> Target:
    deployment = _deployment(body, spec) if spec is not None else None
    layout = plan(deployment) if deployment is not None else None
    policy = _policy(body)
    start_limit_s = spec.engine.limits.start_limit_seconds if spec is not None else 1800
    return Target(
        name=str(body["metadata"]["name"]),
        namespace=str(body["metadata"]["namespace"]),
        replicas=_replicas(body, observed, last),
        revision=last.revision,
        spec=last.spec if last.template is not None else _without_image(last.spec),
        image=_image_of(last),
        templates=kept,
        policy=policy,
        progress_deadline_s=policy.progress_deadline_seconds or start_limit_s + 600,
        layout=layout if isinstance(layout, Layout) else None,
        serving=_serving(observed, last.revision),
        proven=_proven(observed),
        is_adopted=last.is_adopted,
    )


def _restored_from_spec(body: Manifest, observed: Observed, last: Record) -> Target | None:
    """Return the target of a record that kept the spec alone, while no group runs it: rendered as of now."""
    spec = _parsed(last.spec)
    deployment = _deployment(body, spec) if spec is not None else None
    layout = plan(deployment) if deployment is not None else None
    if deployment is None or not isinstance(layout, Layout):
        return None
    template = group_template(deployment, layout)
    kept = {**templates(observed), last.revision: template}
    return replace(_restored(body, observed, last, kept, spec), image=deployment.image)


def templates(observed: Observed) -> dict[str, Manifest]:
    """Return what each revision is made from, as kept; else as a live StatefulSet of it has it."""
    found = {record.revision: record.template for record in observed.records if record.template is not None}
    for group in observed.groups.values():
        live = observed.stateful_set(group.name)
        if group.exists and live is not None and group.revision and group.revision not in found:
            found[group.revision] = template_of(live)
    return found


def record(target: Target, observed: Observed, *, is_complete: bool = False) -> Manifest:
    """Return the record of the target's spec. An older one of the same data is numbered anew: it is the last again.

    is_complete: every group is where the target has it.
    """
    data = {"spec": dict(target.spec), "image": target.image, "template": target.templates[target.revision]}
    name = names.record_name(target.name, hash_of(data))
    last = latest(observed.records)
    number = (last.number if last.name == name else last.number + 1) if last is not None else 1
    was_under_way = last is not None and last.name == name and last.is_adopting
    is_under_way = (target.is_adoption or was_under_way) and not is_complete  # going back to one begins none
    serves = any(group.is_available and group.revision == target.revision for group in observed.groups.values())
    annotations = {
        names.REPLICAS_ANNOTATION: str(target.replicas),
        names.SERVING_ANNOTATION: str(target.serving),
        **({names.ADOPTED_ANNOTATION: "true" if is_under_way else "done"} if target.is_adopted else {}),
        **({names.GUARDED_ANNOTATION: "true"} if is_guarded(observed) else {}),
        **({names.PROVEN_ANNOTATION: "true"} if serves or target.revision in target.proven else {}),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "labels": {
                **labels(target.name, "record"),
                names.RECORD_LABEL: "true",
                names.REVISION_LABEL: target.revision,
            },
            "annotations": annotations,
        },
        "data": data,
        "revision": number,
    }


def is_plain(observed: Observed) -> bool:
    """Tell whether groups of what was accepted last speak plain HTTP."""
    last = latest(observed.records)
    return last is not None and not (last.template is not None and speaks_tls(last.template["spec"]["template"]))


def is_guarded(observed: Observed) -> bool:
    """Tell whether clients are asked for API keys where access.auth says nothing.

    So it is for what this version was the first to accept. One from before there were gateways stays as open as it was.
    """
    last = latest(observed.records)
    return last.is_guarded if last is not None else not observed.has_groups


def surplus(observed: Observed, current: str) -> list[str]:
    """Return the names of the records to delete: not current, not among the last, and no group runs their revision.

    A record that keeps the spec alone goes as soon as another one keeps all of the same revision.
    """
    in_use = {group.revision for group in observed.groups.values()}
    whole = {record.revision for record in observed.records if record.template is not None}
    halves = [record for record in observed.records if record.template is None and record.revision in whole]
    newest = sorted((each for each in observed.records if each not in halves), key=lambda record: -record.number)
    old = [record for record in newest[KEPT:] if record.revision not in in_use]
    return [record.name for record in [*halves, *old] if record.name != current]


def is_of(record: Record, deployment: GLMDeployment) -> bool:
    """Tell whether a record is of the deployment's spec, as far as that moves a group.

    An image that is named now and was the default then is the same one. Records of the version before have the default
    image written into their spec: nobody knows any more whether it was named.
    """
    spec = _parsed(record.spec)
    if spec is None or _without_image(spec.normal_form()) != _without_image(deployment.spec.normal_form()):
        return False
    named, then = deployment.spec.engine.image, spec.engine.image
    if record.template is None and named is None:
        return True
    return named == then or (then is None and named == record.image)


def _serving(observed: Observed, revision: str) -> int:
    """Return the most groups that served since a revision was accepted; of one that is about to be, those that do."""
    now, last = sum(group.is_available for group in observed.groups.values()), latest(observed.records)
    is_last = last is not None and last.revision == revision
    return max(now, last.serving or 0) if is_last and last is not None else now


def _proven(observed: Observed) -> tuple[str, ...]:
    """Return the revisions at which a group was available, the last accepted first."""
    marked = sorted((each for each in observed.records if each.is_proven), key=lambda record: -record.number)
    return tuple(dict.fromkeys(record.revision for record in marked))


def _image_in(template: Manifest) -> str:
    return str(template["spec"]["template"]["spec"]["containers"][0].get("image", ""))


def _image_of(record: Record) -> str:
    """Return the resolved image of a record; of the version before, its spec has it."""
    engine = record.spec.get("engine")
    named = engine.get("image") if isinstance(engine, dict) else None
    return record.image or str(named or "")


def _without_image(form: Mapping[str, object]) -> dict[str, object]:
    engine = form.get("engine")
    kept = {key: value for key, value in engine.items() if key != "image"} if isinstance(engine, dict) else {}
    return {**form, "engine": kept}


def _parsed(spec: Mapping[str, object]) -> GLMDeploymentSpec | None:
    """Return a recorded spec as this version understands it, or None."""
    try:
        return GLMDeploymentSpec.model_validate({key: spec[key] for key in spec if key not in MOVES_NOTHING})
    except ValidationError:
        return None


def _deployment(body: Manifest, spec: GLMDeploymentSpec) -> GLMDeployment | None:
    try:
        return GLMDeployment.model_validate({"metadata": body["metadata"], "spec": spec})
    except ValidationError:
        return None


def _replicas(body: Manifest, observed: Observed, last: Record) -> int:
    """Return the number of groups wanted now, if it is possible, else as recorded, else those there are."""
    spec = body.get("spec")
    wanted = as_read_by_the_api_server(spec.get("replicas")) if isinstance(spec, dict) else None
    if type(wanted) is int and 0 <= wanted <= 1000:
        return wanted
    return last.replicas if last.replicas is not None else sum(group.exists for group in observed.groups.values())


def _policy(body: Manifest) -> Rollout:
    """Return how groups move, if that is possible, else the defaults: the rest of the spec may be refused."""
    spec = body.get("spec")
    try:
        return Rollout.model_validate(
            as_read_by_the_api_server(spec.get("rollout") or {}) if isinstance(spec, dict) else {}
        )
    except ValidationError:
        return Rollout()
