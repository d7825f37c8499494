"""Records of accepted specs: numbered, restored, and kept no longer than needed."""

from typing import Any

import pytest

from glm_operator import names
from glm_operator.observe.observed import Observed, Record
from glm_operator.rollout import records
from glm_operator.rollout.steps import Target
from unit.operator.operator_builders import a_body, a_group, a_target


def kept(manifest: dict[str, Any]) -> Record:
    """Return a record as it is read back."""
    return Record(
        name=manifest["metadata"]["name"],
        number=manifest["revision"],
        spec=manifest["data"],
        revision=manifest["metadata"]["labels"][names.REVISION_LABEL],
        replicas=int(manifest["metadata"]["annotations"][names.REPLICAS_ANNOTATION]),
    )


def accept(*targets: Target) -> tuple[Record, ...]:
    """Return the records after these specs were accepted one after another."""
    found: dict[str, Record] = {}
    for target in targets:
        record = kept(records.record(target, tuple(found.values())))
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
    assert restored.deployment.spec == target.deployment.spec
    assert restored.revision == target.revision


def test_nothing_is_restored_where_nothing_was_accepted() -> None:
    assert records.restore(a_body(), Observed()) is None


def test_a_record_this_version_does_not_understand_is_left_alone() -> None:
    record = Record(name="chat-x", number=1, spec={"model": "old"}, revision="r", replicas=1)
    assert records.restore(a_body(), Observed(records=(record,))) is None


def test_a_record_without_a_count_keeps_the_groups_there_are() -> None:
    (record,) = accept(limited(1))
    uncounted = Record(record.name, record.number, record.spec, record.revision, replicas=None)
    restored = records.restore(a_body(), Observed(groups={1: a_group(1)}, records=(uncounted,)))
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
