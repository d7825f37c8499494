"""The gateway of a deployment in real passes: when there is one, where the Service leads, what an edit costs."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from glm_operator import names
from glm_operator.observe.gateway_state import GatewayState
from glm_operator.observe.report import GroupReport
from integration.fake_kubernetes import FakeKubernetes
from integration.operator_rig import Rig, a_deployment_body, a_rig, set_spec, uids

TO_GATEWAY = {names.DEPLOYMENT_LABEL: "chat", names.COMPONENT_LABEL: "gateway"}
TO_GROUPS = {names.DEPLOYMENT_LABEL: "chat", names.POD_INDEX_LABEL: "0"}
OPEN = {"auth": "None"}


def a_body(**spec: Any) -> dict[str, Any]:
    body = a_deployment_body(**spec)
    if "gateway" not in spec:
        del body["spec"]["gateway"]
    return body


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body(access={"auth": "APIKeys"}))

    async with a_rig(prepare) as made:
        await made.settle()
        yield made


def selector(rig: Rig) -> dict[str, str]:
    found: dict[str, str] = rig.fake.get("services", "chat")["spec"]["selector"]
    return found


def file(rig: Rig) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(rig.fake.get("configmaps", "chat-gateway")["data"]["gateway.json"])
    return read


def replace_labels_of_records(rig: Rig) -> None:
    """Make the records what an operator from before there were gateways has left."""
    for name in rig.fake.names("controllerrevisions"):
        rig.fake.edit(
            "controllerrevisions", name, lambda item: item["metadata"]["annotations"].pop(names.GUARDED_ANNOTATION)
        )


async def test_a_new_deployment_has_a_gateway_that_asks_for_keys(rig: Rig) -> None:
    assert selector(rig) == TO_GATEWAY
    assert file(rig)["auth"] == {"mode": "Keys", "keysFolder": "/etc/glm/keys"}
    assert file(rig)["models"][0]["groups"] == {"service": "chat-worker", "namespace": "models"}
    pod = rig.fake.get("deployments", "chat-gateway")["spec"]["template"]["spec"]
    (keys,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "keys"]
    assert keys == {"secretName": "glm-keys", "optional": True}
    assert rig.condition("GatewayReady")[:2] == ("True", "GatewayServes")
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")
    assert {"chat-gateway"} == {
        *rig.fake.names("roles"), *rig.fake.names("rolebindings"), *rig.fake.names("configmaps")
    }  # fmt: skip


async def test_nobody_gets_past_the_gateway_of_a_new_deployment_not_even_before_it_answers() -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())

    async with a_rig(prepare) as rig:
        await rig.run_pass()
        assert selector(rig) == TO_GATEWAY
        assert file(rig)["auth"]["mode"] == "Keys"
        await rig.run_pass()
        assert rig.condition("Ready")[:2] == ("False", "GatewayStarting")


async def test_one_from_before_gateways_stays_as_open_as_it_was_until_it_says_who_may_ask() -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body(gateway={"enabled": False}))

    async with a_rig(prepare) as rig:
        await rig.settle()
        replace_labels_of_records(rig)
        before = uids(rig)
        rig.fake.edit("glmdeployments", "chat", lambda body: body["spec"].pop("gateway"))
        await rig.settle()
        assert selector(rig) == TO_GROUPS
        assert rig.fake.names("deployments") == []
        status, reason, message = rig.condition("GatewayReady")
        assert (status, reason) == ("False", "AuthNotSaid")
        assert "access.auth" in message
        assert rig.condition("Ready")[0] == "True"

        set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})  # an edit that moves groups is none of who may ask
        await rig.settle()
        assert selector(rig) == TO_GROUPS
        moved = uids(rig)
        assert not set(before.values()) & set(moved.values())

        set_spec(rig, access=OPEN)
        await rig.run_pass()
        assert selector(rig) == TO_GROUPS, "clients are led to a gateway once it answers"
        await rig.settle()
        assert selector(rig) == TO_GATEWAY
        assert moved.items() <= uids(rig).items(), "no group moves for it"


async def test_an_edit_of_limits_reaches_the_pods_of_the_gateway_and_replaces_none(rig: Rig) -> None:
    before, digest = uids(rig), rig.fake.get("configmaps", "chat-gateway")["metadata"]["annotations"]
    set_spec(rig, access={"auth": "APIKeys", "limits": {"default": {"requestsPerMinute": 5}}})
    await rig.settle()
    assert file(rig)["quotas"] == {"default": {"requestsPerMinute": 5}}
    assert uids(rig) == before
    after = rig.fake.get("configmaps", "chat-gateway")["metadata"]["annotations"][names.CONFIG_ANNOTATION]
    assert after != digest[names.CONFIG_ANNOTATION]
    (pod,) = [name for name in rig.fake.names("pods") if "gateway" in name]
    assert rig.fake.get("pods", pod)["metadata"]["annotations"][names.CONFIG_ANNOTATION] == after


async def test_another_operator_version_rolls_no_gateway_and_a_new_revision_does(rig: Rig) -> None:
    def image() -> str:
        found: str = rig.fake.get("deployments", "chat-gateway")["spec"]["template"]["spec"]["containers"][0]["image"]
        return found

    first = image()
    rig.gateway_image = "operator:2"
    await rig.end()
    await rig.settle()
    assert image() == first
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
    await rig.settle()
    assert image() == "operator:2"


async def test_more_replicas_are_only_more_replicas(rig: Rig) -> None:
    template = rig.fake.get("deployments", "chat-gateway")["spec"]["template"]
    before = uids(rig)
    set_spec(rig, gateway={"replicas": 3})
    await rig.settle()
    found = rig.fake.get("deployments", "chat-gateway")["spec"]
    assert (found["replicas"], found["template"]) == (3, template)
    assert before.items() <= uids(rig).items()


def scale_gateway(rig: Rig, replicas: int) -> None:
    """Do what an autoscaler of its Deployment does."""
    rig.fake.edit("deployments", "chat-gateway", lambda item: item["spec"].update(replicas=replicas))


async def test_where_the_spec_says_no_number_pods_are_as_many_as_somebody_else_wants(rig: Rig) -> None:
    def replicas() -> int:
        found: int = rig.fake.get("deployments", "chat-gateway")["spec"]["replicas"]
        return found

    assert replicas() == 1
    scale_gateway(rig, 3)
    await rig.settle()
    assert replicas() == 3
    assert rig.condition("GatewayReady") == ("True", "GatewayServes", "3/3 pods of the gateway are ready")
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})  # makes its pods anew
    await rig.settle()
    assert replicas() == 3

    set_spec(rig, access={"auth": "APIKeys", "limits": {"default": {"requestsPerMinute": 5}}})
    await rig.settle()
    assert "each of them lets in all that access.limits allow" in rig.condition("GatewayReady")[2]
    set_spec(rig, gateway={"store": {"url": "redis://valkey:6379/0"}})
    await rig.settle()
    assert "lets in" not in rig.condition("GatewayReady")[2]

    scale_gateway(rig, 0)
    await rig.settle()
    assert replicas() == 1, "without any there is nobody to answer"


async def test_a_number_in_the_spec_is_set_again_when_somebody_else_sets_another_one(rig: Rig) -> None:
    set_spec(rig, gateway={"replicas": 2})
    await rig.settle()
    scale_gateway(rig, 5)
    await rig.settle()
    assert rig.fake.get("deployments", "chat-gateway")["spec"]["replicas"] == 2


async def test_a_gateway_that_is_not_wanted_any_more_has_no_pods_and_the_service_leads_to_the_groups(rig: Rig) -> None:
    set_spec(rig, gateway={"enabled": False})
    await rig.settle()
    assert selector(rig) == TO_GROUPS
    assert rig.fake.get("deployments", "chat-gateway")["spec"]["replicas"] == 0
    assert rig.condition("GatewayReady")[:2] == ("False", "GatewayDisabled")
    set_spec(rig, gateway={"enabled": True})
    await rig.settle()
    assert selector(rig) == TO_GATEWAY


async def test_a_bad_edit_leaves_the_gateway_as_it_is(rig: Rig) -> None:
    before, at = file(rig), selector(rig)
    set_spec(rig, gateway={"replicas": 0})
    await rig.settle()
    assert (file(rig), selector(rig)) == (before, at)
    status, reason, message = rig.condition("GatewayReady")
    assert (status, reason) == ("Unknown", "InvalidSpec")
    assert "spec.gateway.replicas" in message


BLUE = {"alsoServes": {"selector": {"matchLabels": {"team": "blue"}}}}
NANO = {"name": "glm-nano", "source": "builtin://glm-nano"}


async def put_other(rig: Rig, name: str, team: str = "blue", **model: str) -> None:
    """Make another deployment, and wait until it serves."""
    body = a_deployment_body(name, model={**NANO, **model})
    body["metadata"]["labels"] = {"team": team}
    rig.fake.put("glmdeployments", body)
    await rig.settle(name)


def named(rig: Rig) -> dict[str, list[str]]:
    """Return the models of the file, each with its former names."""
    return {model["name"]: model.get("formerNames", []) for model in file(rig)["models"]}


async def test_a_model_with_another_name_keeps_the_old_one_as_long_as_a_group_serves_it(rig: Rig) -> None:
    set_spec(rig, replicas=2)
    await rig.settle()
    set_spec(rig, model={**NANO, "servedName": "nano-2026"})
    await rig.run_pass()  # moves the first group
    assert named(rig) == {"nano-2026": ["glm-nano"]}
    await rig.settle()
    assert named(rig) == {"nano-2026": []}


async def test_a_former_name_that_means_something_else_now_is_not_kept(rig: Rig) -> None:
    set_spec(rig, replicas=2)
    await rig.settle()
    alias = {"name": "glm-nano", "arms": [{"to": "nano-2026"}]}
    set_spec(rig, model={**NANO, "servedName": "nano-2026"}, gateway={"names": [alias]})
    await rig.run_pass()
    assert named(rig) == {"nano-2026": []}
    assert file(rig)["names"][0]["name"] == "glm-nano"


async def test_of_another_deployment_behind_the_gateway_counts_what_was_accepted(rig: Rig) -> None:
    await put_other(rig, "code", servedName="coder")
    set_spec(rig, gateway=BLUE)
    await rig.settle()
    assert named(rig) == {"glm-nano": [], "coder": []}

    set_spec(rig, "code", model={**NANO, "servedName": "coder-2"}, parallelism={"tensor": 3})
    await rig.settle("code")
    assert rig.condition("Planned", "code")[:2] == ("False", "LayoutRefused")
    await rig.settle()
    assert named(rig) == {"glm-nano": [], "coder": []}, "a refused edit changes nothing"

    rig.fake.edit("glmdeployments", "code", lambda body: body["spec"].pop("parallelism"))
    set_spec(rig, "code", replicas=2)
    await rig.run_pass("code")
    await rig.run_pass("code")
    await rig.settle()
    assert "coder-2" in named(rig)
    await rig.settle("code")
    await rig.settle()
    assert named(rig) == {"glm-nano": [], "coder-2": []}


@pytest.mark.parametrize(
    ("spec", "awaits"),
    [
        ({"replicas": 0}, False),
        ({"replicas": 0, "scaling": {"max": 2}}, False),  # min is 1: 0 is a person's word
        ({"replicas": 0, "scaling": {"mode": "Observe", "min": 0, "max": 2}}, False),
        ({"replicas": 0, "scaling": {"mode": "External"}}, True),
        ({"replicas": 0, "scaling": {"min": 0, "max": 2}}, True),
        ({"replicas": 1}, True),
    ],
)
async def test_where_nobody_will_ever_come_the_gateway_is_told(rig: Rig, spec: dict[str, Any], awaits: bool) -> None:
    await put_other(rig, "code", servedName="coder")
    set_spec(rig, gateway=BLUE, **spec)
    set_spec(rig, "code", **spec)
    await rig.settle("code")
    await rig.settle()
    assert [model.get("awaitsGroups", True) for model in file(rig)["models"]] == [awaits, awaits]


async def test_a_gateway_of_the_version_before_is_told_no_field_that_it_does_not_know(rig: Rig) -> None:
    rig.gateway_image = "operator:2"
    await rig.end()
    set_spec(rig, replicas=0)
    await rig.settle()
    assert "awaitsGroups" not in file(rig)["models"][0]
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})  # makes its pods anew
    await rig.settle()
    assert file(rig)["models"][0]["awaitsGroups"] is False


async def test_what_the_end_of_drains_cut_is_added_up_in_the_status(rig: Rig) -> None:
    def num_cut() -> int | None:
        found: int | None = rig.fake.get("glmdeployments", "chat")["status"].get("gateway", {}).get("cutRequests")
        return found

    assert num_cut() is None, "no pod has told any"
    (pod,) = [name for name in rig.fake.names("pods") if "gateway" in name]
    digest = rig.fake.get("configmaps", "chat-gateway")["metadata"]["annotations"][names.CONFIG_ANNOTATION]
    for cut, seconds in ((0, 1), (2, 2)):
        rig.gateways.said = {pod: GatewayState(config_digest=digest, cut=cut)}
        set_spec(rig, rollout={"minReadySeconds": seconds})
        await rig.settle()
        assert num_cut() == cut
    await rig.end()  # another operator goes on from what the status says
    set_spec(rig, rollout={"minReadySeconds": 3})
    await rig.settle()
    assert num_cut() == 2


async def test_who_was_never_accepted_is_not_served_and_said(rig: Rig) -> None:
    body = a_deployment_body("code", model={**NANO, "servedName": "coder"}, parallelism={"tensor": 3})
    body["metadata"]["labels"] = {"team": "blue"}
    rig.fake.put("glmdeployments", body)
    await rig.settle("code")
    set_spec(rig, gateway=BLUE)
    await rig.settle()
    assert named(rig) == {"glm-nano": []}
    assert "code was never accepted" in rig.condition("GatewayReady")[2]


async def test_an_operator_that_knows_nothing_yet_leaves_others_as_they_are(rig: Rig) -> None:
    await put_other(rig, "code", servedName="coder")
    set_spec(rig, gateway=BLUE)
    await rig.settle()
    before = file(rig)
    await rig.end()
    rig.watches_bring = False
    await rig.run_pass()
    assert file(rig) == before
    rig.watches_bring = True
    await rig.settle()
    assert file(rig) == before


async def test_other_deployments_behind_one_gateway_are_those_that_its_selector_names(rig: Rig) -> None:
    await put_other(rig, "code", servedName="coder")
    await put_other(rig, "twin")
    await put_other(rig, "far", team="red", servedName="far")
    set_spec(rig, gateway=BLUE)
    await rig.settle()
    models = {model["name"]: model["groups"]["service"] for model in file(rig)["models"]}
    assert models == {"glm-nano": "chat-worker", "coder": "code-worker"}
    tokens = {model["name"]: model.get("token") for model in file(rig)["models"]}
    uid = rig.fake.get("glmdeployments", "code")["metadata"]["uid"]
    assert tokens == {"glm-nano": None, "coder": names.gateway_token(uid)}
    status, reason, message = rig.condition("GatewayReady")
    assert (status, reason) == ("True", "NotServed")
    assert "twin serves glm-nano as chat does: give it a model.servedName" in message


async def test_a_part_of_the_callers_gets_the_newest_revision_until_all_groups_have_it_or_it_is_taken_back(
    rig: Rig,
) -> None:
    set_spec(rig, replicas=3, gateway={"canary": {"weight": 10}})
    await rig.settle()
    first = rig.fake.get("glmdeployments", "chat")["status"]["revision"]
    assert file(rig)["models"][0]["canary"] == {"revision": first, "weight": 10}
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
    await rig.run_pass()  # moves the first group
    set_spec(rig, rollout={"paused": True})
    await rig.settle()
    second = rig.fake.get("glmdeployments", "chat")["status"]["revision"]
    assert second != first
    assert file(rig)["models"][0]["canary"] == {"revision": second, "weight": 10}
    assert f"10 % of the callers get revision {second}" in rig.condition("GatewayReady")[2]
    assert rig.fake.get("glmdeployments", "chat")["status"]["upToDate"] == "1/3"
    set_spec(rig, gateway={"canary": {"weight": 50, "mayFall": False}})
    await rig.settle()
    assert file(rig)["models"][0]["canary"] == {"revision": second, "weight": 50, "mayFall": False}

    rig.fake.edit("glmdeployments", "chat", lambda body: body["spec"].pop("engine"))
    await rig.settle()
    assert rig.fake.get("glmdeployments", "chat")["status"]["revision"] == first
    assert file(rig)["models"][0]["canary"]["revision"] == second, "callers of the old one are not sent to the new one"
    set_spec(rig, rollout={"paused": False})
    await rig.settle()
    assert file(rig)["models"][0]["canary"]["revision"] == first
    assert "callers" not in rig.condition("GatewayReady")[2]


async def test_what_a_gateway_says_of_itself_is_a_condition(rig: Rig) -> None:
    (pod,) = [name for name in rig.fake.names("pods") if "gateway" in name]
    digest = rig.fake.get("configmaps", "chat-gateway")["metadata"]["annotations"][names.CONFIG_ANNOTATION]
    said = GatewayState(config_digest=digest, keys=0)
    rig.gateways.said = {pod: said}
    set_spec(rig, rollout={"minReadySeconds": 1})
    await rig.settle()
    assert rig.condition("GatewayReady")[:2] == ("True", "NoKeys")

    plain = {"m": {"groups": {"chat-g0": {"plain": True}}}}
    rig.gateways.said = {pod: GatewayState.model_validate({"config_digest": digest, "keys": 1, "models": plain})}
    set_spec(rig, rollout={"minReadySeconds": 2})
    await rig.settle()
    assert rig.condition("GatewayReady")[:2] == ("True", "PlainGroups")

    rig.gateways.said = {pod: said.model_copy(update={"config_fault": "usage: only a new process can take it"})}
    set_spec(rig, rollout={"minReadySeconds": 3})
    await rig.settle()
    assert rig.condition("GatewayReady")[:2] == ("False", "GatewayStarting")

    rig.gateways.said = {pod: GatewayState(config_digest="another", config_fault="names.0: bad")}
    set_spec(rig, rollout={"minReadySeconds": 4})
    await rig.settle()
    assert rig.condition("GatewayReady")[:2] == ("False", "GatewayFileRefused")


async def test_a_settled_deployment_with_a_gateway_costs_the_api_server_nothing(rig: Rig) -> None:
    rig.workers.said["chat-g0"] = GroupReport.model_validate({"state": "serving"})
    await rig.settle()
    reads, writes = rig.reads, len(rig.fake.writes)
    outcome = await rig.run_pass()
    assert outcome.settled
    assert (rig.reads, len(rig.fake.writes)) == (reads, writes)


async def test_somebody_elses_object_of_the_gateways_name_is_not_taken_over() -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body(access=OPEN))
        fake.put("configmaps", {"metadata": {"name": "chat-gateway", "namespace": "models"}, "data": {"a": "b"}})

    async with a_rig(prepare) as rig:
        await rig.settle()
        assert rig.fake.get("configmaps", "chat-gateway")["data"] == {"a": "b"}
        assert rig.condition("GatewayReady")[:2] == ("False", "NameConflict")


async def test_a_deployment_without_groups_is_ready_where_a_request_brings_one(rig: Rig) -> None:
    set_spec(rig, replicas=0, scaling={"min": 0, "max": 1})
    await rig.settle()
    status, reason, message = rig.condition("Ready")
    assert (status, reason) == ("True", "ScaledToZero")
    assert "holds the next request" in message
    set_spec(rig, scaling={"min": 1, "max": 1})
    await rig.settle()
    assert rig.condition("Ready")[:2] == ("False", "ScaledToZero")


async def test_what_a_hand_changed_is_set_right_also_where_an_hpa_says_how_many_pods(rig: Rig) -> None:
    scale_gateway(rig, 3)
    await rig.settle()
    writes = rig.writes
    await rig.settle()
    assert rig.writes == writes, "another number is nothing to write of"

    def by_hand(item: dict[str, Any]) -> None:
        item["spec"]["template"]["spec"]["containers"][0]["image"] = "by-hand:1"

    for number in (3, 4):
        scale_gateway(rig, number)
        rig.fake.edit("deployments", "chat-gateway", by_hand)
        await rig.settle()
        found = rig.fake.get("deployments", "chat-gateway")["spec"]
        assert found["template"]["spec"]["containers"][0]["image"] == "operator:1"
        assert found["replicas"] == number


async def test_another_deployment_that_cannot_be_read_keeps_its_place_and_harms_nobody(rig: Rig) -> None:
    await put_other(rig, "other", servedName="blue")
    set_spec(rig, gateway=BLUE)
    await rig.settle()
    assert set(named(rig)) == {"glm-nano", "blue"}
    (record,) = [name for name in rig.fake.names("controllerrevisions") if name.startswith("other-")]
    rig.fake.edit("controllerrevisions", record, lambda item: item.update(data="by hand"))
    set_spec(rig, gateway={**BLUE, "drainSeconds": 77})
    await rig.settle()
    assert set(named(rig)) == {"glm-nano", "blue"}
    assert rig.condition("GatewayReady")[:2] == ("True", "GatewayServes")
