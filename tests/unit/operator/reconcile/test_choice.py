"""Where groups go: to the newest spec, or why not."""

from dataclasses import replace
from typing import Any

from glm_operator import names
from glm_operator.api.trouble import Trouble
from glm_operator.observe.observed import Observed, Record
from glm_operator.reconcile.choice import Newest, is_new, newest
from unit.operator.operator_builders import a_body, a_target


def accepted(body: dict[str, Any]) -> Newest:
    found = newest(body, "worker:1")
    assert isinstance(found, Newest), found
    return found


def asking_for(revision: str, **spec: Any) -> dict[str, Any]:
    """Return a deployment of which somebody asked for a revision by name."""
    body = a_body(**spec)
    return {**body, "metadata": {**body["metadata"], "annotations": {names.ADOPT_ANNOTATION: revision}}}


def kept(revision: str = "before") -> Observed:
    """Return what exists of a deployment that another version of the operator rendered."""
    target = accepted(a_body()).target(Observed())
    (template,) = target.templates.values()
    record = Record("chat-abc", 1, target.spec, revision, replicas=1, template=template, image=target.image)
    return Observed(records=(record,))


FRESH = accepted(a_body()).target(Observed()).revision


def test_a_spec_that_our_rules_refuse_is_told() -> None:
    assert newest(a_body(replicas=-1), "worker:1") == Trouble(
        "spec", "InvalidSpec", "spec.replicas is -1: Input should be greater than or equal to 0"
    )


def test_a_layout_that_no_group_fits_is_told() -> None:
    refused = newest(a_body(parallelism={"expert": 3}), "worker:1")
    assert isinstance(refused, Trouble)
    assert refused.reason == "LayoutRefused"


def test_a_newer_rendering_is_taken_only_by_who_asks_or_lets_it() -> None:
    bodies = {"nobody": a_body(), "by hand": asking_for(FRESH), "by itself": a_body(rollout={"adopt": "Automatic"})}
    taken = {who: accepted(body).target(kept()).revision for who, body in bodies.items()}
    assert taken == {"nobody": "before", "by hand": FRESH, "by itself": FRESH}


def test_who_has_no_place_to_adopt_stays() -> None:
    for body in (asking_for(FRESH), a_body(rollout={"adopt": "Automatic"})):
        assert accepted(body).without_adoption(kept()).revision == "before"


def test_going_back_to_what_was_kept_needs_no_place() -> None:
    found = kept()
    newer = replace(found.records[0], name="chat-def", number=2, revision="after")
    both = Observed(records=(*found.records, newer))
    assert accepted(a_body()).target(both).revision == "after"
    assert accepted(asking_for("before")).target(both).revision == "before"
    adopted = Observed(records=tuple(replace(each, is_adopted=True) for each in both.records))
    assert not accepted(asking_for("before")).target(adopted).is_adoption


def test_what_was_not_accepted_last_is_tried() -> None:
    target = replace(a_target(), revision="before")
    assert is_new(target, Observed())
    assert not is_new(target, kept())
    assert is_new(target, kept("after"))
