"""Passes against an API server: what exists afterwards, for a user who applies, edits, breaks and deletes."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from glm_operator import names
from integration.fake_kubernetes import FakeKubernetes, Manifest, Refused
from integration.operator_rig import NOW, Rig, a_deployment_body, a_rig, revisions, set_spec, uids

BAD = {"tensor": 1, "expert": 3}  # CEL would refuse it; the operator must not depend on that


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body())) as made:
        yield made


async def test_a_deployment_becomes_ready_with_what_it_needs(rig: Rig) -> None:
    await rig.settle()
    assert rig.fake.names("statefulsets") == ["chat-g0"]
    assert rig.fake.names("services") == ["chat", "chat-ranks"]
    assert rig.fake.names("serviceaccounts") == ["chat-worker"]
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_everything_is_owned_by_its_deployment(rig: Rig) -> None:
    await rig.settle()
    uid = rig.fake.get("glmdeployments", "chat")["metadata"]["uid"]
    for plural in ("statefulsets", "services", "serviceaccounts", "controllerrevisions"):
        for name in rig.fake.names(plural):
            assert [owner["uid"] for owner in rig.fake.get(plural, name)["metadata"]["ownerReferences"]] == [uid]


EMPTY: dict[str, Any] = {
    "a model without a name": {"model": {"name": "custom", "source": "file:///opt/model"}},
    "limits for requests": {"hardware": {"device": "cpu", "resources": {"limits": {"cpu": "1", "memory": "4Gi"}}}},
    "a toleration without a value": {"hardware": {"device": "cpu", "tolerations": [{"key": "gpu", "value": ""}]}},
    "a label without a value": {"hardware": {"device": "cpu", "nodeSelector": {"gpu": ""}}},
}
"""Specs with something empty in them, which the API server may drop."""


@pytest.mark.parametrize("spec", [{}, *EMPTY.values()], ids=["nothing empty", *EMPTY])
async def test_a_settled_deployment_is_not_written_again(rig: Rig, spec: dict[str, Any]) -> None:
    set_spec(rig, **spec)
    await rig.settle()
    before = len(rig.fake.writes)
    outcome = await rig.run_pass()
    assert (outcome.changed, outcome.settled) == (False, True)
    assert len(rig.fake.writes) == before


async def test_the_deployment_itself_is_never_written_but_for_its_status(rig: Rig) -> None:
    await rig.settle()
    written = {write for write in rig.fake.writes if "glmdeployments" in write}
    assert written == {"PATCH glmdeployments/chat/status"}
    assert "finalizers" not in rig.fake.get("glmdeployments", "chat")["metadata"]


async def test_people_are_told_once(rig: Rig) -> None:
    await rig.settle()
    told = [rig.fake.get("events", name)["reason"] for name in rig.fake.names("events")]
    assert sorted(told) == ["AllGroupsReady", "LayoutFound"]


async def test_an_edit_rolls_one_group_after_another(rig: Rig) -> None:
    set_spec(rig, replicas=3)
    await rig.settle()
    old = set(revisions(rig).values())
    set_spec(rig, engine={"image": "worker:2"})
    seen_down = set()
    for _ in range(30):
        await rig.run_pass()
        down = {name for name, revision in revisions(rig).items() if revision in old} ^ set(revisions(rig))
        seen_down |= down
        gone = [pod for pod in rig.fake.names("pods") if "deletionTimestamp" in rig.fake.get("pods", pod)["metadata"]]
        assert len(gone) <= 1
        rig.fake.step()
    assert not set(revisions(rig).values()) & old
    assert rig.condition("Progressing")[:2] == ("False", "Settled")


async def test_an_edit_is_never_called_ready_by_the_pass_that_takes_its_group_down(rig: Rig) -> None:
    await rig.settle()
    set_spec(rig, engine={"image": "worker:2"})
    await rig.run_pass()
    assert rig.condition("Ready")[0] == "False"
    assert rig.condition("Progressing")[:2] == ("True", "RollingOut")


@pytest.mark.parametrize("replicas", [0, 1, 3])
async def test_scaling_leaves_as_many_groups(rig: Rig, replicas: int) -> None:
    set_spec(rig, replicas=2)
    await rig.settle()
    before = uids(rig)
    set_spec(rig, replicas=replicas)
    await rig.settle()
    assert rig.fake.names("statefulsets") == [f"chat-g{index}" for index in range(replicas)]
    kept = {name: uid for name, uid in uids(rig).items() if name in before}
    assert kept.items() <= before.items()
    assert rig.fake.get("glmdeployments", "chat")["status"]["replicas"] == replicas


async def test_a_bad_edit_touches_nothing_and_repair_goes_on_after_a_restart(rig: Rig) -> None:
    set_spec(rig, replicas=2)
    await rig.settle()
    before, writes = uids(rig), len(rig.fake.writes)
    set_spec(rig, parallelism=BAD)
    await rig.end()  # the next pass is of an operator that remembers nothing
    await rig.settle()
    assert uids(rig) == before
    assert {write.split("/")[0] for write in rig.fake.writes[writes:]} <= {"PATCH glmdeployments", "POST events"}
    assert rig.condition("Planned")[:2] == ("False", "LayoutRefused")
    assert "allowed are 1, 2, 4, 8, nearest: 4" in rig.condition("Planned")[2]
    assert rig.condition("Ready")[:2] == ("True", "EditRefused")
    good = revisions(rig)
    rig.fake.delete(("statefulsets", "models", "chat-g1"))
    rig.fake.delete(("services", "models", "chat"))
    rig.fake.delete(("pods", "models", "chat-g0-0"))
    await rig.settle()
    assert sorted(revisions(rig).values()) == sorted(good.values())
    assert "chat" in rig.fake.names("services")


async def test_scaling_works_under_a_bad_edit_and_restarts_nothing(rig: Rig) -> None:
    await rig.settle()
    before = uids(rig)
    set_spec(rig, parallelism=BAD)
    await rig.settle()
    set_spec(rig, replicas=3)  # kubectl scale
    await rig.settle()
    assert rig.fake.names("statefulsets") == ["chat-g0", "chat-g1", "chat-g2"]
    assert before.items() <= uids(rig).items()
    assert set(revisions(rig).values()) == set(revisions(rig, "statefulsets").values())
    assert len(set(revisions(rig).values())) == 1
    assert rig.condition("Planned")[:2] == ("False", "LayoutRefused")
    assert rig.condition("Ready")[:2] == ("True", "EditRefused")
    set_spec(rig, replicas=1)
    await rig.settle()
    assert uids(rig) == before


async def test_a_bad_edit_taken_back_restarts_nothing(rig: Rig) -> None:
    await rig.settle()
    before = uids(rig)
    set_spec(rig, parallelism=BAD)
    await rig.settle()
    set_spec(rig, parallelism={"tensor": 1, "expert": 2})
    await rig.settle()
    assert uids(rig) == before
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_spec_that_was_never_good_makes_nothing(rig: Rig) -> None:
    set_spec(rig, parallelism=BAD)
    await rig.settle()
    assert rig.fake.names("statefulsets") == rig.fake.names("services") == []
    assert rig.condition("Ready")[:2] == ("False", "LayoutRefused")


async def test_an_unknown_field_is_told_and_changes_nothing(rig: Rig) -> None:
    await rig.settle()
    before = uids(rig)
    set_spec(rig, flavour="vanilla")
    await rig.settle()
    assert uids(rig) == before
    assert rig.condition("Planned") == ("False", "InvalidSpec", "spec.flavour is not a known field")


@pytest.mark.parametrize("record", ["unreadable", "deleted"])
async def test_without_a_record_groups_go_on_and_what_they_share_comes_back(rig: Rig, record: str) -> None:
    await rig.settle()
    before = uids(rig)
    set_spec(rig, flavour="vanilla")  # as of a newer operator, which was rolled back
    (name,) = rig.fake.names("controllerrevisions")
    rig.fake.edit("controllerrevisions", name, lambda body: body["data"].update(flavour="vanilla"))
    if record == "deleted":
        rig.fake.delete(("controllerrevisions", "models", name))
    for plural, lost in (("services", "chat"), ("services", "chat-ranks"), ("serviceaccounts", "chat-worker")):
        rig.fake.delete((plural, "models", lost))
    await rig.settle()
    assert uids(rig) == before
    assert rig.fake.names("services") == ["chat", "chat-ranks"]
    assert rig.fake.names("serviceaccounts") == ["chat-worker"]
    assert rig.condition("Planned") == ("False", "InvalidSpec", "spec.flavour is not a known field")
    assert rig.condition("Ready")[:2] == ("True", "EditRefused")
    assert rig.condition("Degraded")[:2] == ("True", "EditRefused")


async def test_a_field_set_and_unset_leaves_no_trace(rig: Rig) -> None:
    await rig.settle()
    before = rig.end_state()["statefulsets/chat-g0"]
    set_spec(rig, hardware={"device": "cpu", "nodeSelector": {"pool": "big"}, "tolerations": [{"operator": "Exists"}]})
    await rig.settle()
    assert rig.end_state()["statefulsets/chat-g0"] != before
    set_spec(rig, hardware={"device": "cpu"})
    await rig.settle()
    assert rig.end_state()["statefulsets/chat-g0"] == before


async def test_a_group_whose_stateful_set_is_deleted_is_replaced_at_once_at_another_index(rig: Rig) -> None:
    await rig.settle()
    rig.fake.delete(("statefulsets", "models", "chat-g0"))
    await rig.run_pass()
    assert rig.fake.names("pods") == ["chat-g0-0"], "the old pod still drains"
    assert rig.fake.names("statefulsets") == ["chat-g1"]
    await rig.settle()
    assert rig.fake.names("pods") == ["chat-g1-0"]
    assert rig.condition("Ready")[0] == "True"


def lose_node(pod: Manifest, silent_s: int) -> None:
    """Make a pod what the node controller makes of it: told to go, with nobody there to do it."""

    def ago(seconds: int) -> str:
        return (NOW - timedelta(seconds=seconds)).isoformat()

    grace_s = 143
    pod["metadata"] |= {"deletionTimestamp": ago(silent_s - grace_s), "deletionGracePeriodSeconds": grace_s}
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "ContainersReady", "status": "True"},
        {"type": "Ready", "status": "False", "lastTransitionTime": ago(silent_s)},
    ]


@pytest.mark.parametrize(("silent_s", "stateful_sets"), [(299, ["chat-g0"]), (301, ["chat-g1"])])
async def test_a_group_whose_node_is_lost_for_long_is_replaced_and_nothing_is_forced(
    rig: Rig, silent_s: int, stateful_sets: list[str]
) -> None:
    await rig.settle()
    rig.fake.edit("pods", "chat-g0-0", lambda pod: lose_node(pod, silent_s))
    for _ in range(3):
        await rig.run_pass()
    assert rig.fake.names("statefulsets") == stateful_sets
    assert rig.fake.names("pods") == ["chat-g0-0"], "it is for whoever looks after the node"
    assert not [write for write in rig.fake.writes if write.startswith("DELETE pods")]
    if silent_s > 300:
        told = [rig.fake.get("events", name)["message"] for name in rig.fake.names("events")]
        assert "chat-g0 goes: its node is lost" in told
    else:
        assert rig.condition("Ready")[:2] == ("False", "NodeLost")


async def test_a_stateful_set_that_is_deleted_without_its_pods_is_made_again_over_them(rig: Rig) -> None:
    await rig.settle()
    before = uids(rig)
    rig.fake.edit("pods", "chat-g0-0", lambda pod: pod["metadata"].pop("ownerReferences"))
    rig.fake.delete(("statefulsets", "models", "chat-g0"))  # as by kubectl delete --cascade=orphan
    await rig.settle()
    assert uids(rig) == before
    assert rig.fake.names("statefulsets") == ["chat-g0"]


@pytest.mark.parametrize("plural", ["services", "serviceaccounts", "controllerrevisions"])
async def test_whatever_is_deleted_comes_back(rig: Rig, plural: str) -> None:
    await rig.settle()
    before = rig.fake.names(plural)
    for name in before:
        rig.fake.delete((plural, "models", name))
    await rig.settle()
    assert rig.fake.names(plural) == before
    assert rig.condition("Ready")[0] == "True"


async def test_what_a_hand_changed_is_changed_back(rig: Rig) -> None:
    await rig.settle()
    rig.fake.edit(
        "services",
        "chat",
        lambda service: service["spec"]["selector"].update(app="other", **{names.POD_INDEX_LABEL: "1"}),
    )
    await rig.settle()
    assert rig.fake.get("services", "chat")["spec"]["selector"][names.POD_INDEX_LABEL] == "0"


async def test_a_foreign_object_is_left_alone_and_named_and_the_rest_goes_on(rig: Rig) -> None:
    theirs = rig.fake.put("services", {"metadata": {"name": "chat"}, "spec": {"selector": {"app": "web"}}})
    await rig.settle()
    assert rig.fake.get("services", "chat")["spec"] == theirs["spec"]
    assert "ownerReferences" not in rig.fake.get("services", "chat")["metadata"]
    assert rig.condition("Ready")[:2] == ("False", "NameConflict")
    assert "Service chat has no owner and is not taken over" in rig.condition("Ready")[2]
    assert rig.fake.names("statefulsets") == ["chat-g0"]
    rig.fake.delete(("services", "models", "chat"))
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_pods_of_a_stateful_set_of_somebody_else_are_left_alone_and_it_is_named(rig: Rig) -> None:
    set_spec(rig, replicas=2)
    await rig.settle()
    before = uids(rig)
    rig.fake.edit("statefulsets", "chat-g1", lambda orphan: orphan["metadata"].pop("ownerReferences"))
    set_spec(rig, replicas=1)
    await rig.settle()
    assert uids(rig) == before
    assert rig.condition("Degraded")[:2] == ("True", "NameConflict")
    assert "StatefulSet chat-g1 has no owner and is not taken over" in rig.condition("Degraded")[2]
    assert rig.condition("Progressing")[:2] == ("False", "NameConflict")
    assert [group["name"] for group in rig.fake.get("glmdeployments", "chat")["status"]["groups"]] == ["chat-g0"]
    rig.fake.delete(("statefulsets", "models", "chat-g1"))
    await rig.settle()
    assert rig.fake.names("pods") == ["chat-g0-0"]
    assert rig.condition("Degraded")[:2] == ("False", "Healthy")


async def test_a_deployment_deleted_without_its_objects_and_applied_anew_deletes_no_pod(rig: Rig) -> None:
    set_spec(rig, replicas=2)
    await rig.settle()
    before = uids(rig)
    for plural in ("statefulsets", "services", "serviceaccounts", "controllerrevisions"):
        for name in rig.fake.names(plural):  # as by kubectl delete --cascade=orphan
            rig.fake.edit(plural, name, lambda orphan: orphan["metadata"].pop("ownerReferences"))
    rig.fake.delete(("glmdeployments", "models", "chat"))
    rig.fake.put("glmdeployments", a_deployment_body())
    await rig.settle()
    assert before.items() <= uids(rig).items()
    assert rig.fake.names("statefulsets") == ["chat-g0", "chat-g1", "chat-g2"], "its own group is beside them"
    assert rig.condition("Degraded")[:2] == ("True", "NameConflict")


async def test_a_controller_revision_of_a_stateful_set_itself_is_none_of_ours(rig: Rig) -> None:
    await rig.settle()
    stateful_set = rig.fake.get("statefulsets", "chat-g0")["metadata"]
    owner = {"kind": "StatefulSet", "name": "chat-g0", "uid": stateful_set["uid"], "controller": True}
    metadata = {"name": "chat-g0-5b689db885", "labels": stateful_set["labels"], "ownerReferences": [owner]}
    rig.fake.put("controllerrevisions", {"metadata": metadata, "data": {}, "revision": 1})
    assert (await rig.run_pass()).settled
    assert rig.condition("Degraded")[:2] == ("False", "Healthy")


async def test_an_object_that_lost_its_labels_is_still_ours(rig: Rig) -> None:
    await rig.settle()
    rig.fake.edit("services", "chat", lambda service: service["metadata"].pop("labels"))
    await rig.settle()
    assert rig.fake.get("services", "chat")["metadata"]["labels"][names.DEPLOYMENT_LABEL] == "chat"


async def test_what_an_earlier_deployment_left_is_waited_for(rig: Rig) -> None:
    await rig.settle()
    rig.fake.delete(("glmdeployments", "models", "chat"))
    rig.fake.put("glmdeployments", a_deployment_body())
    await rig.run_pass()
    assert rig.condition("Ready")[:2] == ("False", "GroupsPending")
    assert rig.condition("Degraded")[0] == "False"
    await rig.settle()
    assert rig.condition("Ready")[0] == "True"


async def test_a_deployment_on_its_way_out_is_not_touched(rig: Rig) -> None:
    rig.fake.edit("glmdeployments", "chat", lambda body: body["metadata"].update(deletionTimestamp="now"))
    outcome = await rig.run_pass()
    assert not outcome.exists
    assert rig.fake.writes == []


async def test_deleting_the_deployment_removes_all_of_it_without_the_operator(rig: Rig) -> None:
    await rig.settle()
    rig.fake.delete(("glmdeployments", "models", "chat"))
    while rig.fake.step():
        pass
    assert {plural for plural, _, _ in rig.fake.objects} <= {"events"}


async def test_a_namespace_on_its_way_out_is_no_error(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(write: str) -> None:
        raise Refused(403, "Forbidden", "forbidden: unable to create new content", ("NamespaceTerminating",))

    rig.fake.before_write = refuse
    outcome = await rig.run_pass()
    assert (outcome.exists, outcome.settled) == (True, False)
    assert "403" not in caplog.text
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_an_image_that_cannot_be_pulled_is_told_and_can_be_taken_back(rig: Rig) -> None:
    await rig.settle()
    set_spec(rig, engine={"image": "missing:1"})
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("False", "ImagePullFailed")
    assert "missing:1" in rig.condition("Ready")[2]
    set_spec(rig, engine={})
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_second_deployment_is_a_world_of_its_own() -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_deployment_body("chat"))
        fake.put("glmdeployments", a_deployment_body("chat-2"))

    async with a_rig(prepare) as rig:
        await rig.settle("chat")
        await rig.settle("chat-2")
        before = rig.end_state()
        set_spec(rig, replicas=0)
        await rig.settle("chat")
        assert rig.fake.names("statefulsets") == ["chat-2-g0"]
        assert rig.end_state()["statefulsets/chat-2-g0"] == before["statefulsets/chat-2-g0"]


async def test_only_the_last_records_are_kept(rig: Rig) -> None:
    for num_seqs in range(1, 10):
        set_spec(rig, engine={"limits": {"maxNumSeqs": num_seqs}})
        await rig.settle()
    assert len(rig.fake.names("controllerrevisions")) == 5
