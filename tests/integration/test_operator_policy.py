"""The policy of requests in real passes: who is told it, what moves, and what is said where it is not taken."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from glm_operator import names
from glm_operator.cluster.workers import NotTaken, PutRefused
from glm_operator.observe.report import GroupReport
from integration.fake_kubernetes import FakeKubernetes
from integration.operator_rig import Rig, a_deployment_body, a_rig, revisions, set_spec, uids

HIDDEN: dict[str, Any] = {"visibility": "Hidden"}
REFUSAL = PutRefused("pod chat-g0-0 refused the policy with 422: reasoning.auto_threshold is 2")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    def prepare(fake: FakeKubernetes) -> None:
        fake.pod_ip = lambda _: "10.0.0.1"
        fake.put("glmdeployments", a_deployment_body())

    async with a_rig(prepare) as made:
        hear(made, "chat-g0", policy_digest=None)
        await made.settle()
        yield made


def hear(rig: Rig, group: str, **said: Any) -> None:
    """Let the workers of a group say something at /group."""
    rig.workers.said[group] = GroupReport.model_validate({"state": "serving", **said})


def told(rig: Rig) -> list[tuple[str, Any]]:
    """Return which groups were put a policy, and who may see reasoning by it."""
    return [(group, body["reasoning"]["visibility"]) for group, _, body in rig.workers.policies]


async def test_who_says_nothing_puts_nothing_and_all_is_well(rig: Rig) -> None:
    assert rig.workers.policies == []
    assert rig.condition("PolicyApplied")[:2] == ("True", "PolicyTaken")


async def test_an_edit_reaches_workers_in_one_pass_and_writes_to_no_group(rig: Rig) -> None:
    before = (uids(rig), uids(rig, "statefulsets"), revisions(rig), len(rig.fake.writes))
    set_spec(rig, reasoning={"default": "Auto", "autoThreshold": 0.7, **HIDDEN}, access={"trustProxyHeaders": True})
    await rig.run_pass()
    ((group, token, body),) = rig.workers.policies
    assert (group, token) == (
        "chat-g0",
        names.management_token(rig.fake.get("glmdeployments", "chat")["metadata"]["uid"]),
    )
    assert (body["reasoning"]["auto_threshold"], body["trust_proxy_headers"]) == (0.7, True)
    await rig.settle()
    assert len(rig.workers.policies) == 1, "once is enough"
    assert (uids(rig), uids(rig, "statefulsets"), revisions(rig)) == before[:3]
    written = {write.split("/")[0] for write in rig.fake.writes[before[3] :]}
    assert written <= {"PATCH glmdeployments", "POST events"}, "no record, no template, no pod"
    assert rig.condition("PolicyApplied") == ("True", "PolicyTaken", "chat-g0: as spec.reasoning and spec.access say")


async def test_a_worker_that_lost_it_is_told_again(rig: Rig) -> None:
    set_spec(rig, reasoning=HIDDEN)
    await rig.settle()
    hear(rig, "chat-g0", policy_digest=None)
    await rig.settle()
    assert told(rig) == [("chat-g0", "hidden"), ("chat-g0", "hidden")]


async def test_a_policy_that_is_taken_away_is_taken_from_workers(rig: Rig) -> None:
    set_spec(rig, reasoning=HIDDEN)
    await rig.settle()
    set_spec(rig, reasoning={})
    await rig.settle()
    assert told(rig) == [("chat-g0", "hidden"), ("chat-g0", "visible")]


async def test_promises_and_policy_are_put_in_the_same_pass(rig: Rig) -> None:
    hear(rig, "chat-g0", policy_digest=None, slo_digest=None)
    set_spec(rig, reasoning=HIDDEN, slo={"classes": [{"name": "chat", "ttft": "1s"}]})
    await rig.run_pass()
    assert (len(rig.workers.puts), told(rig)) == (1, [("chat-g0", "hidden")])
    assert (await rig.run_pass()).settled


async def test_a_policy_holds_where_the_rest_of_an_edit_is_refused(rig: Rig) -> None:
    set_spec(rig, reasoning=HIDDEN, parallelism={"tensor": 1, "expert": 3})
    await rig.settle()
    assert rig.condition("Planned")[0] == "False"
    assert told(rig) == [("chat-g0", "hidden")]


async def test_workers_of_the_version_before_are_not_asked_and_are_a_condition(rig: Rig) -> None:
    hear(rig, "chat-g0", slo_digest=None)
    set_spec(rig, reasoning=HIDDEN)
    await rig.settle()
    assert rig.workers.policies == []
    words = "chat-g0: the worker image is of an older version, which knows no policy"
    assert rig.condition("PolicyApplied") == ("False", "PolicyNotTaken", words)
    assert rig.condition("Ready")[0] == "True"
    assert (await rig.run_pass()).settled, "nothing will change by itself"


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (REFUSAL, "chat-g0: pod chat-g0-0 refused the policy with 422"),
        (None, "chat-g0: its worker has no page /policy"),
    ],
)
async def test_a_refusal_is_a_condition_until_the_policy_is_taken(rig: Rig, fails: Exception | None, says: str) -> None:
    rig.workers.policies_fail, rig.workers.has_policy_page = fails, False
    set_spec(rig, reasoning=HIDDEN)
    assert not (await rig.run_pass()).settled
    status, reason, message = rig.condition("PolicyApplied")
    assert (status, reason, message.startswith(says)) == ("False", "PolicyNotTaken", True)
    rig.workers.policies_fail, rig.workers.has_policy_page = None, True
    await rig.settle()
    assert rig.condition("PolicyApplied")[:2] == ("True", "PolicyTaken")
    events = [rig.fake.get("events", name)["reason"] for name in rig.fake.names("events")]
    assert [reason for reason in events if reason.startswith("Policy")] == ["PolicyNotTaken", "PolicyTaken"]


async def test_a_moment_of_silence_is_no_refusal(rig: Rig) -> None:
    rig.workers.policies_fail = NotTaken("pod chat-g0-0 did not answer")
    set_spec(rig, reasoning=HIDDEN)
    assert not (await rig.run_pass()).settled
    assert rig.condition("PolicyApplied") == ("Unknown", "PolicyPending", "not told yet: chat-g0")
    rig.workers.policies_fail = None
    await rig.run_pass()
    assert (await rig.run_pass()).settled


async def test_a_policy_that_cannot_be_is_said_and_workers_keep_theirs(rig: Rig) -> None:
    set_spec(rig, reasoning=HIDDEN)
    await rig.settle()
    set_spec(rig, reasoning={"visibility": "ByRole", "visibleTo": ["dev"]})
    await rig.settle()
    assert told(rig) == [("chat-g0", "hidden")]
    status, reason, message = rig.condition("PolicyApplied")
    assert (status, reason) == ("Unknown", "InvalidSpec")
    assert "needs access.auth" in message


async def test_an_operator_upgrade_with_nothing_said_moves_and_tells_nobody(rig: Rig) -> None:
    before = (uids(rig), revisions(rig))
    hear(rig, "chat-g0")  # a worker of the version before
    await rig.end()
    await rig.settle()
    assert (uids(rig), revisions(rig), rig.workers.policies) == (*before, [])
    assert rig.condition("PolicyApplied")[:2] == ("True", "PolicyTaken")


@pytest.mark.parametrize("reasoning", [{}, HIDDEN])
async def test_a_group_that_waits_for_its_policy_is_told_while_it_starts_also_what_is_the_default(
    rig: Rig, reasoning: dict[str, Any]
) -> None:
    set_spec(rig, reasoning=reasoning)
    await rig.settle()
    before = len(rig.workers.policies)
    hear(rig, "chat-g0", state="starting", policy_digest=None, awaits_policy=True)
    await rig.run_pass()
    assert len(rig.workers.policies) == before + 1
    await rig.settle()
    assert len(rig.workers.policies) == before + 1, "once is enough"
    assert told(rig)[-1] == ("chat-g0", "hidden" if reasoning else "visible")


async def test_a_group_that_cannot_be_told_is_named_with_what_comes_of_it(rig: Rig) -> None:
    rig.workers.policies_fail = NotTaken("pod chat-g0-0 did not answer")
    hear(rig, "chat-g0", policy_digest=None, awaits_policy=True)
    assert not (await rig.run_pass()).settled
    words = "not told yet: chat-g0; chat-g0: never told any, so reasoning is hidden from everybody there"
    assert rig.condition("PolicyApplied") == ("Unknown", "PolicyPending", words)
    rig.workers.policies_fail = None
    await rig.settle()
    assert rig.condition("PolicyApplied")[:2] == ("True", "PolicyTaken")
