"""Passes against an API server that does not take all that is asked of it: what is refused, denied, or fails."""

from collections.abc import AsyncIterator

import pytest

from glm_operator.render import pod
from integration.fake_kubernetes import Refused
from integration.operator_rig import Rig, a_deployment_body, a_rig, revisions, set_spec, uids


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_deployment_body())) as made:
        yield made


def answer(rig: Rig, what: str, status: int, reason: str, message: str) -> None:
    """Have the API server answer writes of this kind with an error."""

    def refuse(write: str) -> None:
        if what in write:
            raise Refused(status, reason, message)

    rig.fake.before_write = refuse


async def test_pods_the_server_refuses_are_told_in_its_words(rig: Rig) -> None:
    answer(rig, "statefulsets", 422, "Invalid", "spec.template.spec.tolerations[0]: Invalid value")
    await rig.settle()
    for kind in ("Planned", "Ready"):
        assert rig.condition(kind) == ("False", "ApplyRefused", "spec.template.spec.tolerations[0]: Invalid value")
    assert rig.fake.names("controllerrevisions") == []


@pytest.mark.parametrize("what", ["PATCH statefulsets/chat-g", "POST pods"])
@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [(422, "Invalid", "ApplyRefused"), (403, "Forbidden", "WriteDenied"), (500, "InternalError", "WriteFailed")],
)
async def test_an_edit_whose_pods_the_server_does_not_take_leaves_groups_and_their_repair(
    rig: Rig, what: str, status: int, reason: str, told: str
) -> None:
    await rig.settle()
    before, good = uids(rig), revisions(rig)
    set_spec(rig, hardware={"device": "cpu", "tolerations": [{"operator": "Exists", "value": "x"}]})

    def refuse(write: str) -> None:
        if write.startswith(what) and write.endswith("(dry run)"):
            raise Refused(status, reason, "no such pods")

    rig.fake.before_write = refuse
    for _ in range(3):
        await rig.run_pass()
        rig.fake.step()
    assert uids(rig) == before
    assert rig.condition("Planned")[:2] == ("False", told)
    assert "no such pods" in rig.condition("Planned")[2]
    assert rig.condition("Ready")[:2] == ("True", "EditRefused")
    assert (await rig.run_pass()).settled == (status == 422), "what another spec must mend is left to the resync"
    rig.fake.delete(("statefulsets", "models", "chat-g0"))
    await rig.end()  # the next pass is of an operator that remembers nothing
    await rig.settle()
    assert [*revisions(rig).values()] == [*good.values()]
    assert rig.condition("Ready")[:2] == ("True", "EditRefused")


async def test_a_quota_full_of_the_pods_to_be_replaced_refuses_no_edit(rig: Rig) -> None:
    await rig.settle()
    before = revisions(rig)
    set_spec(rig, engine={"image": "worker:2"})
    said = "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    answer(rig, "POST pods (dry run)", 403, "Forbidden", said)
    await rig.settle()
    assert set(revisions(rig).values()).isdisjoint(before.values())
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_pod_that_finds_no_room_in_a_quota_is_told_until_there_is(rig: Rig) -> None:
    rig.fake.pod_quota = 2
    await rig.settle()
    set_spec(rig, replicas=4)  # kubectl scale: no new spec, so none is tried
    await rig.settle()
    told = 'chat-g2: pods "chat-g2-0" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    assert rig.condition("Ready") == ("False", "WriteDenied", f"2/4 groups are ready; {told} (and 1 more)")
    assert rig.condition("Degraded") == ("True", "WriteDenied", told)
    assert rig.condition("Progressing")[:2] == ("False", "WriteDenied")
    assert not (await rig.run_pass()).settled
    rig.fake.pod_quota = None
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")
    assert rig.condition("Degraded")[:2] == ("False", "Healthy")


async def test_a_first_pod_that_would_fit_a_quota_that_others_fill_is_told(rig: Rig) -> None:
    rig.fake.put("pods", {"metadata": {"name": "other"}, "spec": {}, "status": {"phase": "Running"}})
    rig.fake.pod_quota = 1
    await rig.settle()
    assert rig.condition("Planned")[0] == "True"
    for kind, status in (("Ready", "False"), ("Degraded", "True")):
        assert rig.condition(kind)[:2] == (status, "WriteDenied")
        assert "exceeded quota: q" in rig.condition(kind)[2]
    rig.fake.delete(("pods", "models", "other"))
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_pod_that_cannot_be_made_again_is_told_under_a_refused_edit_too(rig: Rig) -> None:
    await rig.settle()
    set_spec(rig, flavour="vanilla")
    rig.fake.delete(("pods", "models", "chat-g0-0"))
    rig.fake.pod_quota = 0
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("False", "WriteDenied")
    assert 'pods "chat-g0-0" is forbidden' in rig.condition("Ready")[2]


async def test_a_pod_made_while_it_was_tried_is_not_told_as_refused(rig: Rig) -> None:
    await rig.run_pass()
    rig.fake.pod_quota = 1

    def make(write: str) -> None:
        if write == "POST pods (dry run)":
            rig.fake.step()

    rig.fake.before_write = make
    await rig.run_pass()
    assert rig.fake.names("pods") == ["chat-g0-0"]
    assert rig.condition("Degraded")[:2] == ("False", "Healthy")


async def test_a_pod_whose_name_is_taken_is_told(rig: Rig) -> None:
    rig.fake.put("pods", {"metadata": {"name": "chat-g0-0"}, "spec": {}, "status": {"phase": "Running"}})
    await rig.settle()
    assert rig.condition("Degraded")[:2] == ("True", "NameConflict")
    assert 'pods "chat-g0-0" already exists' in rig.condition("Ready")[2]


async def test_a_refusal_of_a_missing_pod_in_ever_new_words_is_no_progress(rig: Rig) -> None:
    await rig.settle()
    rig.fake.pod_quota = 0
    rig.fake.delete(("pods", "models", "chat-g0-0"))
    rig.fake.step()
    for number in range(3):
        answer(rig, "POST pods (dry run)", 500, "InternalError", f"failed calling webhook: port {number}")
        outcome = await rig.run_pass()
        assert rig.condition("Degraded")[:2] == ("True", "WriteFailed")
        assert (outcome.changed, outcome.settled) == (False, False)


async def test_the_pod_that_is_tried_has_an_account_that_exists(rig: Rig) -> None:
    accounts: list[list[str]] = []

    def see(write: str) -> None:
        if write == "POST pods (dry run)":
            accounts.append(rig.fake.names("serviceaccounts"))

    rig.fake.before_write = see
    await rig.settle()
    set_spec(rig, engine={"image": "worker:2"})
    await rig.settle()
    assert accounts == [["chat-worker"], ["chat-worker"]]


async def test_a_first_spec_whose_pods_are_denied_is_told_and_taken_once_they_are_not(rig: Rig) -> None:
    answer(rig, "POST pods (dry run)", 403, "Forbidden", "maximum memory usage per Container is 1Mi")
    await rig.settle()
    for kind in ("Planned", "Ready"):
        assert rig.condition(kind) == ("False", "WriteDenied", "maximum memory usage per Container is 1Mi")
    assert not (await rig.run_pass()).settled
    assert rig.fake.names("controllerrevisions") == []
    rig.fake.before_write = lambda _: None
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_first_spec_is_tried_also_while_an_earlier_deployment_goes(rig: Rig) -> None:
    await rig.settle()
    rig.fake.delete(("glmdeployments", "models", "chat"))
    rig.fake.put("glmdeployments", a_deployment_body())
    answer(rig, "POST pods (dry run)", 422, "Invalid", "no such pods")
    await rig.settle()
    assert rig.condition("Planned") == ("False", "ApplyRefused", "no such pods")
    assert rig.fake.names("controllerrevisions") == []


async def test_a_refusal_in_ever_new_words_is_no_progress(rig: Rig) -> None:
    await rig.settle()
    set_spec(rig, engine={"image": "worker:2"})
    for number in range(3):
        answer(rig, "POST pods (dry run)", 500, "InternalError", f"failed calling webhook: port {number}")
        outcome = await rig.run_pass()
        assert (outcome.changed, outcome.settled) == (False, False)


async def test_a_newer_rendering_whose_pods_are_refused_is_not_adopted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.settle()
    before, records = uids(rig), revisions(rig, "controllerrevisions")
    monkeypatch.setattr(pod, "GRACE_MARGIN_S", pod.GRACE_MARGIN_S + 1)  # it renders the same spec in another way
    answer(rig, "POST pods (dry run)", 422, "Invalid", "no such pods")
    set_spec(rig, rollout={"adopt": "Automatic"})
    await rig.end()
    await rig.settle()
    assert uids(rig) == before
    assert revisions(rig, "controllerrevisions") == records
    assert rig.condition("UpToDate")[:2] == ("False", "NewerRendering")
    assert "it was refused: no such pods" in rig.condition("UpToDate")[2]
    assert rig.condition("Planned")[0] == "True", "nobody edited anything"
    assert rig.condition("Degraded")[:2] == ("False", "Healthy")
    rig.fake.before_write = lambda _: None
    await rig.settle()
    assert set(uids(rig).values()).isdisjoint(before.values())
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_no_group_moves_to_a_spec_that_cannot_be_recorded(rig: Rig) -> None:
    await rig.settle()
    before = uids(rig)
    answer(rig, "PATCH controllerrevisions", 500, "InternalError", "no room")
    set_spec(rig, engine={"image": "worker:2"})
    await rig.settle()
    assert uids(rig) == before
    assert rig.condition("Degraded")[:2] == ("True", "WriteFailed")
    rig.fake.before_write = lambda _: None
    await rig.settle()
    assert set(uids(rig).values()).isdisjoint(before.values())


async def test_an_edit_is_taken_once_the_server_takes_its_pods(rig: Rig) -> None:
    await rig.settle()
    before = revisions(rig)
    set_spec(rig, engine={"image": "worker:2"})
    answer(rig, "PATCH statefulsets/chat-g0", 403, "Forbidden", "registry not allowed")
    await rig.settle()
    assert revisions(rig) == before
    rig.fake.before_write = lambda _: None
    await rig.settle()
    assert revisions(rig).keys() == before.keys()
    assert revisions(rig) != before
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_group_whose_template_cannot_be_written_is_told_as_it_is(rig: Rig) -> None:
    set_spec(rig, replicas=2)
    await rig.settle()
    before = revisions(rig)
    set_spec(rig, engine={"image": "worker:2"}, replicas=3)

    def refuse(write: str) -> None:
        if write.startswith("PATCH statefulsets") and not write.endswith("(dry run)"):
            raise Refused(403, "Forbidden", "exceeded quota: models")

    rig.fake.before_write = refuse
    await rig.run_pass()
    status = rig.fake.get("glmdeployments", "chat")["status"]
    assert revisions(rig) == before
    assert (status["replicas"], status["readyReplicas"], status["ready"]) == (2, 2, "2/3")
    assert [group["ready"] for group in status["groups"]] == [True, True, False]
    assert {group["revision"] for group in status["groups"][:2]} == set(before.values())
    assert rig.condition("Degraded")[:2] == ("True", "WriteDenied")


async def test_a_write_that_fails_keeps_nothing_else_from_being_done_and_is_told(rig: Rig) -> None:
    await rig.settle()
    rig.fake.delete(("services", "models", "chat"))
    rig.fake.delete(("statefulsets", "models", "chat-g0"))
    answer(rig, "services/chat", 500, "InternalError", "failed calling webhook: connection refused")
    await rig.settle()
    assert len(rig.fake.names("statefulsets")) == 1
    assert rig.condition("Ready")[:2] == ("False", "WriteFailed")
    assert "failed calling webhook: connection refused" in rig.condition("Ready")[2]
    assert not (await rig.run_pass()).settled
    rig.fake.before_write = lambda _: None
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_denied_write_is_told_and_made_up_for_once_it_is_allowed(rig: Rig) -> None:
    quota = 'statefulsets.apps "chat-g0" is forbidden: exceeded quota: models'

    def deny(write: str) -> None:
        if "statefulsets" in write:
            raise Refused(403, "Forbidden", quota)

    rig.fake.before_write = deny
    await rig.settle()
    assert rig.condition("Ready") == ("False", "WriteDenied", quota)
    assert rig.condition("Degraded") == ("True", "WriteDenied", quota)
    assert rig.fake.names("services") == ["chat", "chat-ranks"]
    assert not (await rig.run_pass()).settled
    rig.fake.before_write = lambda _: None
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")
    assert rig.condition("Degraded")[:2] == ("False", "Healthy")


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (400, "BadRequest")])
async def test_a_denied_delete_keeps_nothing_else_from_being_done(rig: Rig, status: int, reason: str) -> None:
    set_spec(rig, replicas=3)
    await rig.settle()
    said = 'admission webhook "keep.example" denied the request: protected'
    answer(rig, "DELETE statefulsets/chat-g1", status, reason, said)
    set_spec(rig, replicas=1)
    await rig.settle()
    assert rig.fake.names("statefulsets") == ["chat-g0", "chat-g1"]
    assert rig.condition("Degraded")[:2] == ("True", "WriteDenied")
    assert "protected" in rig.condition("Degraded")[2]
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")


async def test_a_record_that_cannot_be_deleted_harms_nothing(rig: Rig) -> None:
    answer(rig, "DELETE controllerrevisions", 403, "Forbidden", "protected")
    for num_seqs in range(1, 10):
        set_spec(rig, engine={"limits": {"maxNumSeqs": num_seqs}})
        await rig.settle()
    assert len(rig.fake.names("controllerrevisions")) == 9
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")
