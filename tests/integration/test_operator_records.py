"""What is kept of accepted specs, and that nothing but a person's edit, or an adoption, moves a group."""

from collections.abc import AsyncIterator

import pytest

from glm_operator import names
from glm_operator.manifest import hash_of
from glm_operator.render import group, pod
from integration.fake_kubernetes import FakeKubernetes, Manifest
from integration.operator_rig import Rig, a_deployment_body, a_rig, revisions, set_spec, uids


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body(replicas=2))) as made:
        await made.settle()
        yield made


async def upgrade(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the operator by one that renders another grace period and another default image."""
    await rig.end()
    monkeypatch.setattr(pod, "GRACE_MARGIN_S", pod.GRACE_MARGIN_S + 1)
    rig.image = "worker:2"


def wanted_by_hand(rig: Rig, revision: str) -> None:
    """Do what `kubectl glm rollout adopt` does."""
    rig.fake.edit(
        "glmdeployments",
        "chat",
        lambda body: body["metadata"].setdefault("annotations", {}).update({names.ADOPT_ANNOTATION: revision}),
    )


def events(rig: Rig) -> list[str]:
    return [rig.fake.get("events", name)["reason"] for name in rig.fake.names("events")]


def newer(rig: Rig) -> str:
    found: str = rig.fake.get("glmdeployments", "chat")["status"]["newerRevision"]
    return found


async def test_a_record_keeps_the_spec_the_template_and_the_image(rig: Rig) -> None:
    (name,) = rig.fake.names("controllerrevisions")
    data = rig.fake.get("controllerrevisions", name)["data"]
    assert data["image"] == "worker:1"
    assert "image" not in data["spec"]["engine"]
    assert not {"replicas", "rollout"} & data["spec"].keys()
    (container,) = data["template"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "worker:1"


async def test_an_upgrade_of_the_operator_moves_no_group_and_says_that_it_renders_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, sets = uids(rig), revisions(rig, "statefulsets")
    await upgrade(rig, monkeypatch)
    await rig.settle()
    assert uids(rig) == before
    assert revisions(rig, "statefulsets") == sets
    assert rig.condition("UpToDate")[:2] == ("False", "NewerRendering")
    assert "kubectl glm rollout adopt chat" in rig.condition("UpToDate")[2]
    assert rig.condition("Ready")[0] == "True"
    assert rig.condition("Progressing")[:2] == ("False", "Settled")


async def test_a_frozen_deployment_scales_and_is_repaired_from_what_was_kept(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = {*revisions(rig).values()}
    await upgrade(rig, monkeypatch)
    set_spec(rig, replicas=3)
    rig.fake.delete(("statefulsets", "models", "chat-g0"))
    await rig.settle()
    assert len(rig.fake.names("pods")) == 3
    assert {*revisions(rig).values()} == revision
    images = {rig.fake.get("pods", name)["spec"]["containers"][0]["image"] for name in rig.fake.names("pods")}
    assert images == {"worker:1"}


@pytest.mark.parametrize("edit", [{"replicas": 3}, {"rollout": {"maxUnavailable": 2}}, {"rollout": {"paused": True}}])
async def test_an_edit_that_no_template_needs_adopts_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, edit: Manifest
) -> None:
    before = uids(rig)
    await upgrade(rig, monkeypatch)
    set_spec(rig, **edit)
    await rig.settle()
    assert before.items() <= uids(rig).items()


async def test_a_newer_rendering_is_taken_when_somebody_says_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await upgrade(rig, monkeypatch)
    await rig.settle()
    wanted_by_hand(rig, newer(rig))
    await rig.settle()
    assert {*revisions(rig).values()} == {rig.fake.get("glmdeployments", "chat")["status"]["revision"]}
    assert rig.fake.get("pods", "chat-g0-0")["spec"]["containers"][0]["image"] == "worker:2"
    assert rig.condition("UpToDate")[:2] == ("True", "UpToDate")
    assert {"RenderingAdopted", "GroupMoved", "RolloutCompleted"} <= {*events(rig)}


async def test_an_adoption_is_undone_by_naming_the_revision_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = {*revisions(rig).values()}
    await upgrade(rig, monkeypatch)
    set_spec(rig, rollout={"adopt": "Automatic"})
    await rig.settle()
    assert before not in revisions(rig).values()
    wanted_by_hand(rig, before)
    await rig.settle()
    assert {*revisions(rig).values()} == {before}, "an automatic adoption does not overrule a hand"
    assert "RolledBack" in events(rig)


async def test_an_edit_taken_back_finds_the_template_that_was_kept(rig: Rig) -> None:
    before = revisions(rig)
    set_spec(rig, engine={"image": "worker:9"})
    await rig.settle()
    assert {*revisions(rig).values()}.isdisjoint(before.values())
    set_spec(rig, engine={})
    await rig.settle()
    assert revisions(rig) == before
    assert {"RolloutStarted", "RolledBack"} <= {*events(rig)}


async def test_a_rendering_that_changes_what_no_update_can_change_is_adopted_group_by_group(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.end()
    made = group.group_template

    def other(deployment: object, layout: object, *, has_tls: bool = False) -> Manifest:
        template = made(deployment, layout, has_tls=has_tls)  # type: ignore[arg-type]
        return {**template, "spec": {**template["spec"], "serviceName": "chat-pods"}}

    monkeypatch.setattr("glm_operator.rollout.records.group_template", other)
    set_spec(rig, rollout={"adopt": "Automatic"})
    for _ in range(40):
        await rig.run_pass()
        ready = rig.fake.get("glmdeployments", "chat")["status"]["readyReplicas"]
        assert ready >= 1
        rig.fake.step()
    await rig.settle()
    assert {rig.fake.get("statefulsets", name)["spec"]["serviceName"] for name in rig.fake.names("statefulsets")} == {
        "chat-pods"
    }
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_the_fleet_adopts_one_deployment_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = [f"chat-{letter}" for letter in "abcd"]

    def prepare(fake: FakeKubernetes) -> None:
        for name in fleet:
            fake.put("glmdeployments", a_deployment_body(name, replicas=2, rollout={"adopt": "Automatic"}))

    async with a_rig(prepare) as rig:
        for name in fleet:
            await rig.settle(name)
        before = uids(rig)
        await upgrade(rig, monkeypatch)
        for turn in range(200):
            if turn == 20:
                await rig.end()  # the next operator does not remember who adopts
            for name in fleet:
                await rig.run_pass(name)
            groups = {name: rig.fake.get("glmdeployments", name)["status"] for name in fleet}
            down = [name for name, status in groups.items() if status["readyReplicas"] < 2]
            assert len(down) <= 1
            if not rig.fake.step() and all("newerRevision" not in status for status in groups.values()):
                break
        assert {*uids(rig).values()}.isdisjoint(before.values())
        for name in fleet:
            await rig.settle(name)
            assert rig.condition("UpToDate", name)[:2] == ("True", "UpToDate")


# Of the version before: records that keep the spec alone, groups without marks.


def as_before(rig: Rig) -> None:
    """Make records and groups those of the version before, which wrote the default image into its records."""
    for name in rig.fake.names("controllerrevisions"):
        record = rig.fake.get("controllerrevisions", name)
        spec = record["data"]["spec"]
        spec["engine"]["image"] = "worker:1"
        rig.fake.delete(("controllerrevisions", "models", name))
        record["metadata"] |= {"name": f"chat-{hash_of(spec)}", "uid": "uid-old"}
        rig.fake.put("controllerrevisions", {**record, "data": spec})
    for name in rig.fake.names("statefulsets"):
        rig.fake.edit("statefulsets", name, lambda body: body["metadata"].pop("annotations"))


async def test_records_of_the_version_before_move_no_group_and_become_whole(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, revision = uids(rig), {*revisions(rig).values()}
    await upgrade(rig, monkeypatch)
    as_before(rig)
    await rig.settle()
    assert uids(rig) == before
    (name,) = rig.fake.names("controllerrevisions")
    assert {"spec", "template", "image"} == rig.fake.get("controllerrevisions", name)["data"].keys()
    assert rig.condition("UpToDate")[:2] == ("False", "NewerRendering")
    set_spec(rig, replicas=3)
    await rig.settle()
    assert {*revisions(rig).values()} == revision
    (groups,) = {rig.fake.get("pods", "chat-g2-0")["metadata"]["labels"][names.GROUP_LABEL]}
    assert groups == "chat-g2"


async def test_a_record_of_the_version_before_whose_spec_is_refused_now_keeps_its_groups(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, revision = uids(rig), {*revisions(rig).values()}
    await upgrade(rig, monkeypatch)
    as_before(rig)
    set_spec(rig, flavour="vanilla", replicas=3)
    await rig.settle()
    assert before.items() <= uids(rig).items()
    assert {*revisions(rig).values()} == revision
    assert rig.condition("Planned")[:2] == ("False", "InvalidSpec")
