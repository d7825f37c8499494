"""What `glm rollout` makes of a status and of records."""

from dataclasses import replace
from typing import Any

import pytest

from glm_operator import names
from glm_operator.cli.console import CommandError
from glm_operator.cli.rollout import how_it_stands, labels_of, to_go_back_to, undoing
from glm_operator.manifest import merge_patch
from glm_operator.observe.observed import Record
from glm_operator.render import group_template
from unit.operator.operator_builders import a_body, a_deployment, a_layout, a_target


def a_record(number: int, revision: str, **spec: Any) -> Record:
    target = a_target(**spec)
    template = target.templates[target.revision]
    return Record(f"chat-{number}", number, target.spec, revision, replicas=1, template=template)


RECORDS = (a_record(1, "first"), a_record(3, "third"), a_record(2, "second"))


def a_body_at(revision: str, **spec: Any) -> dict[str, Any]:
    return {**a_body(**spec), "status": {"revision": revision, "observedGeneration": 1}}


def a_body_that_says(progressing: str, reason: str, planned: str = "True") -> dict[str, Any]:
    said = [("Planned", planned, "InvalidSpec"), ("Progressing", progressing, reason)]
    conditions = [{"type": kind, "status": status, "reason": why, "message": "so"} for kind, status, why in said]
    return {
        **a_body(),
        "status": {"observedGeneration": 1, "conditions": conditions, "upToDate": "1/2", "ready": "2/2"},
    }


@pytest.mark.parametrize(
    ("body", "is_over", "is_bad"),
    [
        (a_body(), False, False),
        (a_body_that_says("True", "RollingOut"), False, False),
        (a_body_that_says("False", "Settled"), True, False),
        (a_body_that_says("False", "RolloutStuck"), False, True),
        (a_body_that_says("False", "RolloutPaused"), False, True),
        (a_body_that_says("False", "Settled", planned="False"), True, True),
    ],
    ids=["not seen yet", "rolling", "settled", "stuck", "paused", "refused"],
)
def test_a_rollout_is_over_when_it_settles_and_bad_when_only_a_person_helps(
    body: dict[str, Any], is_over: bool, is_bad: bool
) -> None:
    assert how_it_stands(body, ())[1:] == (is_over, is_bad)


@pytest.mark.parametrize(
    ("current", "wanted", "found"),
    [("third", None, "second"), ("second", None, "third"), ("third", "first", "first"), ("third", "1", "first")],
)
def test_undo_goes_to_the_revision_before_or_to_the_one_that_is_named(
    current: str, wanted: str | None, found: str
) -> None:
    assert to_go_back_to(RECORDS, a_body_at(current), wanted).revision == found


def test_undo_waits_for_the_operator_to_see_the_newest_spec_unless_a_revision_is_named() -> None:
    """Else the one before would be that before the last spec, where somebody takes the newest one back at once."""
    body = a_body_at("third")
    body["metadata"]["generation"] = 2
    with pytest.raises(CommandError, match="has not seen the newest spec"):
        to_go_back_to(RECORDS, body, None)
    assert to_go_back_to(RECORDS, body, "third").revision == "third"


def test_undo_of_an_edit_that_was_refused_takes_it_back() -> None:
    body = a_body_that_says("False", "Settled", planned="False")
    body["status"]["revision"] = "third"
    assert to_go_back_to(RECORDS, body, None).revision == "third"


@pytest.mark.parametrize(("records", "wanted"), [(RECORDS, "no-such"), ((a_record(1, "third"),), None)])
def test_undo_without_a_revision_to_go_to_says_which_are_kept(records: tuple[Record, ...], wanted: str | None) -> None:
    with pytest.raises(CommandError, match="kept are"):
        to_go_back_to(records, a_body_at("third"), wanted)


def test_undo_brings_the_spec_back_and_asks_for_its_very_template() -> None:
    body = a_body_at("third", engine={"image": "worker:9"}, replicas=4, rollout={"paused": True})
    change = undoing(body, a_record(1, "first", engine={"limits": {"maxNumSeqs": 3}}))
    assert change["metadata"]["annotations"] == {names.ADOPT_ANNOTATION: "first", names.NEWEST_THEN_ANNOTATION: None}
    assert change["spec"]["engine"]["image"] is None
    assert change["spec"]["engine"]["limits"]["maxNumSeqs"] == 3
    assert not {"replicas", "rollout"} & change["spec"].keys()


def test_a_merge_patch_sets_what_differs_and_nulls_what_goes() -> None:
    current = {"a": 1, "b": {"c": 2, "d": 3}, "gone": {"x": 1}, "list": [1]}
    assert merge_patch(current, {"a": 1, "b": {"c": 2, "d": 4}, "list": [2], "new": {}}) == {
        "gone": None,
        "b": {"d": 4},
        "list": [2],
        "new": {},
    }


def test_a_selector_names_labels() -> None:
    assert labels_of(None) is None
    assert labels_of("team=chat,tier=") == {"team": "chat", "tier": ""}


@pytest.mark.parametrize("selector", ["", "team", "=chat", "team=chat,"])
def test_a_selector_that_names_no_labels_is_refused_with_an_example(selector: str) -> None:
    with pytest.raises(CommandError, match="team=chat"):
        labels_of(selector)


def test_a_rendering_that_was_asked_for_and_is_not_taken_yet_is_waited_for() -> None:
    body = a_body_that_says("False", "Settled")
    body["status"] |= {"revision": "first", "newerRevision": "newer"}
    body["metadata"]["annotations"] = {names.ADOPT_ANNOTATION: "newer"}
    assert how_it_stands(body, RECORDS)[1:] == (False, False)
    body["metadata"]["annotations"] = {names.ADOPT_ANNOTATION: "third"}
    assert how_it_stands(body, RECORDS)[1:] == (False, False), "an undo of an adoption changes no generation"
    body["metadata"]["annotations"] = {names.ADOPT_ANNOTATION: "of-another-spec"}
    assert how_it_stands(body, RECORDS)[1:] == (True, False)


def test_undo_of_an_adoption_says_what_it_goes_back_from() -> None:
    body = a_body_at("third")
    body["status"] |= {"revision": "third", "newerRevision": "newer"}
    annotations = undoing(body, replace(RECORDS[0], spec=body["spec"]))["metadata"]["annotations"]
    assert annotations[names.NEWEST_THEN_ANNOTATION] == "newer"
    body["metadata"]["generation"] = 99
    annotations = undoing(body, replace(RECORDS[0], spec=body["spec"]))["metadata"]["annotations"]
    assert annotations[names.NEWEST_THEN_ANNOTATION] is None, "the status is of another spec"


def test_where_newer_renderings_are_taken_nobody_waits_for_what_was_asked_for_before_there_was_one() -> None:
    body = a_body_that_says("False", "Settled")
    body["spec"]["rollout"] = {"adopt": "Automatic"}
    body["status"] |= {"revision": "first"}
    body["metadata"]["annotations"] = {names.ADOPT_ANNOTATION: "third", names.NEWEST_THEN_ANNOTATION: "first"}
    assert how_it_stands(body, RECORDS)[1:] == (False, False)
    body["metadata"]["annotations"][names.NEWEST_THEN_ANNOTATION] = "third"
    assert how_it_stands(body, RECORDS)[1:] == (True, False)


def test_a_revision_with_tls_that_is_not_taken_as_nobody_could_ask_it_is_not_waited_for() -> None:
    body = a_body_that_says("False", "Settled")
    body["status"] |= {"revision": "first"}
    body["metadata"]["annotations"] = {names.ADOPT_ANNOTATION: "tls"}
    deployment = a_deployment()
    template = group_template(deployment, a_layout(deployment), has_tls=True)
    records = (*RECORDS, replace(a_record(4, "tls"), template=template))
    assert how_it_stands(body, records)[1:] == (True, False)
    body["status"]["newerRevision"] = "newer"
    assert how_it_stands(body, records)[1:] == (False, False), "what is rendered now speaks TLS"
