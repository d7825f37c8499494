"""Records of accepted specs: numbered, restored, and kept no longer than needed."""

from dataclasses import replace
from typing import Any

import pytest

from glm_operator import names
from glm_operator.api.spec import parse_deployment
from glm_operator.observe.observed import Observed, Record
from glm_operator.render import stateful_set
from glm_operator.rollout import records
from glm_operator.rollout.target import Target
from unit.operator.operator_builders import a_body, a_group, a_layout, a_target


def kept(manifest: dict[str, Any]) -> Record:
    """Return a record as it is read back."""
    return Record(
        name=manifest["metadata"]["name"],
        number=manifest["revision"],
        spec=manifest["data"]["spec"],
        revision=manifest["metadata"]["labels"][names.REVISION_LABEL],
        replicas=int(manifest["metadata"]["annotations"][names.REPLICAS_ANNOTATION]),
        template=manifest["data"]["template"],
        image=manifest["data"]["image"],
        is_adopted=names.ADOPTED_ANNOTATION in manifest["metadata"]["annotations"],
        is_adopting=manifest["metadata"]["annotations"].get(names.ADOPTED_ANNOTATION) == "true",
        serving=int(manifest["metadata"]["annotations"][names.SERVING_ANNOTATION]),
        is_proven=names.PROVEN_ANNOTATION in manifest["metadata"]["annotations"],
    )


def accept(*targets: Target) -> tuple[Record, ...]:
    """Return the records after these specs were accepted one after another."""
    found: dict[str, Record] = {}
    for target in targets:
        record = kept(records.record(target, Observed(records=tuple(found.values()))))
        found[record.name] = record
    return tuple(found.values())


def limited(max_num_seqs: int, **spec: Any) -> Target:
    return a_target(engine={"limits": {"maxNumSeqs": max_num_seqs}}, **spec)


def test_each_accepted_spec_has_a_record_and_the_last_has_the_highest_number() -> None:
    one, two = accept(limited(1), limited(2))
    assert (one.number, two.number) == (1, 2)


def test_a_spec_accepted_again_is_the_last_again() -> None:
    one, two = accept(limited(1), limited(2), limited(1))
    assert (one.number, two.number) == (3, 2)


def test_a_record_that_is_the_last_already_does_not_change() -> None:
    (record,) = accept(limited(1), limited(1), limited(1))
    assert record.number == 1


def test_scaling_changes_the_record_and_makes_no_other() -> None:
    (record,) = accept(limited(1), limited(1, replicas=3))
    assert record.replicas == 3


def test_the_last_accepted_spec_comes_back_whole() -> None:
    target = limited(2, replicas=3)
    restored = records.restore(a_body(), Observed(records=accept(limited(1), target)))
    assert restored is not None
    assert (restored.spec, restored.revision, restored.image) == (target.spec, target.revision, target.image)
    assert restored.templates[target.revision] == target.templates[target.revision]
    assert restored.layout == target.layout


def test_nothing_is_restored_where_nothing_was_accepted() -> None:
    assert records.restore(a_body(), Observed()) is None


def test_a_record_this_version_does_not_understand_is_left_alone() -> None:
    record = Record(name="chat-x", number=1, spec={"model": "old"}, revision="r", replicas=1)
    assert records.restore(a_body(), Observed(records=(record,))) is None


def test_a_record_whose_spec_this_version_does_not_understand_still_says_what_groups_are_made_from() -> None:
    (record,) = accept(limited(1, replicas=3))
    restored = records.restore(a_body(replicas=3), Observed(records=(replace(record, spec={"model": "new"}),)))
    assert restored is not None
    assert (restored.replicas, restored.revision, restored.layout) == (3, record.revision, None)
    assert restored.manifest("chat-g0", record.revision, {}) is not None


def test_of_the_newest_spec_how_groups_move_counts_though_it_is_refused() -> None:
    refused = a_body(parallelism={"expert": 3}, rollout={"paused": True, "progressDeadlineSeconds": 9})
    restored = records.restore(refused, Observed(records=accept(limited(1))))
    assert restored is not None
    assert (restored.policy.paused, restored.progress_deadline_s) == (True, 9)


@pytest.mark.parametrize("rollout", [None, {"maxUnavailable": 0}, {"unknown": 1}, "text", []])
def test_a_way_to_move_that_cannot_be_leaves_the_default(rollout: object) -> None:
    restored = records.restore(a_body(rollout=rollout), Observed(records=accept(limited(1))))
    assert restored is not None
    assert restored.policy.most_unavailable(10) == 1


def test_a_record_without_a_count_keeps_the_groups_there_are() -> None:
    (record,) = accept(limited(1))
    uncounted = replace(record, replicas=None)
    restored = records.restore(a_body(), Observed(groups={1: a_group(1), 3: a_group(3)}, records=(uncounted,)))
    assert restored is not None
    assert restored.replicas == 2


@pytest.mark.parametrize("replicas", [0, 1, 5])
def test_scaling_works_while_the_newest_spec_is_refused(replicas: int) -> None:
    target = limited(1, replicas=3)
    refused = a_body(replicas=replicas, parallelism={"tensor": 1, "expert": 3})
    restored = records.restore(refused, Observed(records=accept(target)))
    assert restored is not None
    assert restored.replicas == replicas
    assert restored.revision == target.revision


@pytest.mark.parametrize("replicas", [-1, 1001, "2", True, 1.5, None])
def test_a_number_of_groups_that_cannot_be_leaves_the_recorded_one(replicas: object) -> None:
    restored = records.restore(a_body(replicas=replicas), Observed(records=accept(limited(1, replicas=3))))
    assert restored is not None
    assert restored.replicas == 3


@pytest.mark.parametrize("spec", [None, [], "text"])
def test_a_spec_that_is_none_leaves_the_recorded_number_of_groups(spec: object) -> None:
    restored = records.restore(a_body() | {"spec": spec}, Observed(records=accept(limited(1, replicas=3))))
    assert restored is not None
    assert restored.replicas == 3


@pytest.mark.parametrize("num_accepted", [1, records.KEPT, records.KEPT + 1, records.KEPT + 3])
def test_the_last_few_are_kept(num_accepted: int) -> None:
    found = accept(*(limited(n) for n in range(1, num_accepted + 1)))
    surplus = records.surplus(Observed(records=found), found[-1].name)
    assert len(found) - len(surplus) == min(num_accepted, records.KEPT)
    assert not {record.name for record in found[-records.KEPT :]} & set(surplus)


def test_a_record_that_a_group_still_runs_is_kept() -> None:
    found = accept(*(limited(n) for n in range(1, records.KEPT + 3)))
    running = a_group(0, revision=found[0].revision)
    surplus = records.surplus(Observed(groups={0: running}, records=found), found[-1].name)
    assert surplus == [found[1].name]


def test_a_record_of_the_spec_alone_goes_when_another_has_all_of_its_revision() -> None:
    (whole,) = accept(limited(1))
    half = replace(whole, name="chat-half", number=0, template=None)
    assert records.surplus(Observed(records=(half, whole)), whole.name) == ["chat-half"]
    assert records.surplus(Observed(records=(half,)), whole.name) == []


def accepted_again(*found: Record, image: str = "worker:1", spec: dict[str, Any] | None = None, **how: Any) -> Target:
    """Return where a spec goes that an earlier version of the operator has already accepted."""
    deployment = parse_deployment(a_body(**(spec or {})), default_image=image)
    return records.accept(deployment, a_layout(deployment), Observed(records=found), **how)


def of_an_earlier_operator(*, named_image: str | None = None) -> Record:
    """Return the record of a spec as a version wrote it that rendered another template."""
    spec: dict[str, Any] = {} if named_image is None else {"engine": {"image": named_image}}
    (record,) = accept(accepted_again(image="worker:0", spec=spec))
    assert record.template is not None
    return replace(record, revision="before", template={**record.template, "labels": {}})


def test_another_rendering_of_the_same_spec_is_kept_from_groups() -> None:
    target = accepted_again(of_an_earlier_operator())
    fresh = accepted_again()
    assert (target.revision, target.newer_revision, target.image) == ("before", fresh.revision, "worker:0")
    assert target.templates["before"]["labels"] == {}
    assert not target.is_adopted


def test_a_newer_rendering_is_taken_by_who_asks_for_it() -> None:
    fresh = accepted_again().revision
    for how in ({"adopts": True}, {"wanted": fresh}):
        target = accepted_again(of_an_earlier_operator(), **how)
        assert (target.revision, target.newer_revision, target.is_adopted) == (fresh, None, True)
        assert target.image == "worker:1"


def test_who_names_a_revision_gets_it_though_a_newer_one_that_was_there_is_taken_by_itself() -> None:
    fresh = accepted_again().revision
    undone = replace(of_an_earlier_operator(), name="chat-newer", number=2, revision=fresh)
    target = accepted_again(of_an_earlier_operator(), undone, wanted="before", adopts=True)
    assert (target.revision, target.is_pinned) == ("before", True)


def test_who_named_a_revision_gets_what_is_newer_than_all_that_was_there_then_and_keeps_it() -> None:
    old, fresh = of_an_earlier_operator(), accepted_again().revision
    target = accepted_again(old, wanted="before", newest_then="before", adopts=True)
    assert (target.revision, target.is_adoption) == (fresh, True)
    taken = kept(records.record(target, Observed(records=(old,))))
    again = accepted_again(old, taken, wanted="before", newest_then="before", adopts=True)
    assert (again.revision, again.is_adoption) == (fresh, False)
    undone = accepted_again(old, taken, wanted="before", newest_then=fresh, adopts=True)
    assert (undone.revision, undone.is_pinned) == ("before", True)


def test_what_was_asked_for_when_nobody_wrote_down_what_was_newest_holds() -> None:
    old, fresh = of_an_earlier_operator(), accepted_again().revision
    target = accepted_again(old, wanted="before", adopts=True)
    assert (target.revision, target.is_pinned, target.newer_revision) == ("before", True, fresh)


def test_of_a_lost_record_the_template_is_that_of_the_groups() -> None:
    target = accepted_again()
    template = target.templates[target.revision]
    older = {**template, "spec": {**template["spec"], "podManagementPolicy": "OrderedReady"}}
    found = Observed(
        groups={0: a_group(0, revision="before")},
        live={("apps/v1", "StatefulSet", "chat-g0"): stateful_set(older, "models", "chat-g0", "before")},
    )
    deployment = parse_deployment(a_body())
    again = records.accept(deployment, a_layout(deployment), found)
    assert again.revision == "before"
    assert again.newer_revision not in (None, "before")


def test_a_record_counts_the_most_groups_that_served_and_says_that_its_revision_works() -> None:
    target = replace(limited(1), serving=1)
    (before,) = accept(target)
    assert (before.is_proven, before.serving) == (False, 1)
    found = Observed(groups={index: a_group(index, revision=target.revision) for index in (0, 1)}, records=(before,))
    restored = records.restore(a_body(), found)
    assert restored is not None
    assert restored.serving == 2
    assert kept(records.record(restored, found)).is_proven


def test_an_adoption_is_under_way_until_its_record_says_that_all_are_there() -> None:
    target = replace(limited(1), is_adopted=True)
    (begun,) = accept(replace(target, is_adoption=True))
    assert begun.is_adopting
    found = Observed(records=(begun,))
    assert kept(records.record(target, found)).is_adopting, "the passes after the first one"
    done = kept(records.record(target, found, is_complete=True))
    assert (done.is_adopted, done.is_adopting) == (True, False)
    assert not kept(records.record(target, Observed(records=(done,)))).is_adopting, "a scale-up adopts nothing"
    later = replace(begun, name="chat-later", number=2)
    assert not kept(records.record(target, Observed(records=(done, later)))).is_adopting, "nor does going back"


def test_a_revision_of_another_spec_is_not_to_be_had_by_its_name() -> None:
    (other,) = accept(limited(7))
    assert accepted_again(other, wanted=other.revision).revision == accepted_again().revision


def test_an_edit_gets_what_this_version_renders() -> None:
    target = accepted_again(of_an_earlier_operator(), spec={"parallelism": {"expert": 4}})
    assert (target.newer_revision, target.is_adopted) == (None, False)
    assert target.revision != "before"
    assert set(target.templates) == {"before", target.revision}


@pytest.mark.parametrize("spec", [{"replicas": 5}, {"rollout": {"paused": True}}])
def test_what_moves_no_group_is_no_edit(spec: dict[str, Any]) -> None:
    assert accepted_again(of_an_earlier_operator(), spec=spec).revision == "before"


@pytest.mark.parametrize(
    ("before", "now", "is_same"),
    [(None, "worker:0", True), (None, "worker:9", False), ("mine:1", "mine:1", True), ("mine:1", None, False)],
)
def test_an_image_that_was_the_default_may_be_named(before: str | None, now: str | None, is_same: bool) -> None:
    spec = {} if now is None else {"engine": {"image": now}}
    target = accepted_again(of_an_earlier_operator(named_image=before), spec=spec)
    assert (target.revision == "before") is is_same


def test_a_template_that_no_record_has_is_read_off_its_stateful_set() -> None:
    (template,) = limited(1).templates.values()
    made = stateful_set(template, "models", "chat-g0", "r1")
    seen = Observed(groups={0: a_group(0, revision="r1")}, live={("apps/v1", "StatefulSet", "chat-g0"): made})
    assert records.templates(seen) == {"r1": template}
