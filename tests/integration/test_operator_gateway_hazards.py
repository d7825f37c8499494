"""What must not open, close or strand a deployment's address: edits, deletions by hand, deaths of the operator."""

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from glm_operator import names
from glm_operator.errors import Unavailable
from integration.fake_kubernetes import FakeKubernetes
from integration.operator_rig import Died, Rig, a_deployment_body, a_rig, set_spec
from long_form import short_of

Story = Callable[[Rig], None]

TO_GATEWAY = {names.DEPLOYMENT_LABEL: "chat", names.COMPONENT_LABEL: "gateway"}
TO_GROUPS = {names.DEPLOYMENT_LABEL: "chat", names.POD_INDEX_LABEL: "0"}


def a_body(name: str = "chat", **spec: Any) -> dict[str, Any]:
    body = a_deployment_body(name, **spec)
    if "gateway" not in spec:
        del body["spec"]["gateway"]
    return body


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_body())) as made:
        await made.settle()
        yield made


@pytest.fixture
async def old() -> AsyncIterator[Rig]:
    """A deployment from before there were gateways."""

    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body(gateway={"enabled": False}))

    async with a_rig(prepare) as made:
        await made.settle()
        for name in made.fake.names("controllerrevisions"):
            made.fake.edit(
                "controllerrevisions", name, lambda item: item["metadata"]["annotations"].pop(names.GUARDED_ANNOTATION)
            )
        made.fake.edit("glmdeployments", "chat", lambda body: body["spec"].pop("gateway"))
        await made.settle()
        yield made


def selector(rig: Rig) -> dict[str, str]:
    found: dict[str, str] = rig.fake.get("services", "chat")["spec"]["selector"]
    return found


def lets_clients_past(rig: Rig) -> bool:
    """Whether a pod of nobody's may open port 8000 of workers."""
    if "chat-worker" not in rig.fake.names("networkpolicies"):
        return True
    rules = rig.fake.get("networkpolicies", "chat-worker")["spec"]["ingress"]
    ports = [[port["port"] for port in rule.get("ports", [])] for rule in rules if not rule.get("from")]
    return any(not each or names.HTTP_PORT in each for each in ports)


def forget_records(rig: Rig) -> None:
    for name in rig.fake.names("controllerrevisions"):
        rig.fake.delete(("controllerrevisions", "models", name))


async def test_access_auth_that_is_taken_out_again_opens_nothing(old: Rig) -> None:
    set_spec(old, access={"auth": "APIKeys"})
    await old.settle()
    assert selector(old) == TO_GATEWAY
    old.fake.edit("glmdeployments", "chat", lambda body: body["spec"].pop("access"))
    await old.settle()
    assert selector(old) == TO_GATEWAY
    old.fake.delete(("services", "models", "chat"))
    await old.settle()
    assert selector(old) == TO_GATEWAY


@pytest.mark.parametrize("edit", [{}, {"parallelism": {"tensor": 1, "expert": 3}}])
async def test_records_that_are_deleted_by_hand_open_nothing(rig: Rig, edit: dict[str, Any]) -> None:
    forget_records(rig)
    set_spec(rig, **edit)
    await rig.run_pass()
    assert selector(rig) == TO_GATEWAY
    await rig.settle()
    assert selector(rig) == TO_GATEWAY


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"gateway": {"names": [{"name": "a", "arms": [{"to": "typo"}]}]}}, "spec.gateway"),
        ({"gateway": {"upstreams": [{"name": "u", "url": "http://u/?a=b", "model": "m"}]}}, "spec.gateway.upstreams"),
        (
            {
                "gateway": {"store": {"url": "redis://valkey"}},
                "access": {"limits": {"default": {"monthlyBudget": {"money": "5"}}}},
            },
            "spec.access.limits",
        ),
    ],
)
async def test_a_new_deployment_whose_gateway_cannot_be_is_open_to_nobody(spec: dict[str, Any], field: str) -> None:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_body(**spec))) as rig:
        await rig.settle()
        assert selector(rig) == TO_GATEWAY
        status, reason, message = rig.condition("GatewayReady")
        assert (status, reason) == ("Unknown", "InvalidSpec")
        assert message.startswith(field)
        assert rig.condition("Ready")[:2] == ("False", "InvalidSpec")


async def test_workers_are_closed_to_others_only_once_the_service_leads_past_them(old: Rig) -> None:
    old.gateway_image = "missing:1"
    await old.end()
    set_spec(old, access={"auth": "APIKeys"})
    await old.settle()
    assert selector(old) == TO_GROUPS
    assert lets_clients_past(old)

    set_spec(old, access={"auth": "APIKeys"}, gateway={"image": "operator:1"})
    for name in [name for name in old.fake.names("pods") if "gateway" in name]:  # as a roll-out replaces it
        old.fake.delete(("pods", "models", name))
    await old.settle()
    assert selector(old) == TO_GATEWAY
    assert not lets_clients_past(old)


async def test_workers_that_the_service_leads_to_again_let_clients_in(rig: Rig) -> None:
    assert not lets_clients_past(rig)
    set_spec(rig, gateway={"enabled": False})
    await rig.settle()
    assert selector(rig) == TO_GROUPS
    assert lets_clients_past(rig)
    set_spec(rig, gateway={"enabled": True})
    await rig.settle()
    assert selector(rig) == TO_GATEWAY
    assert not lets_clients_past(rig)


async def test_policies_that_are_turned_off_keep_nobody_out(rig: Rig) -> None:
    rig.network_policies = False
    await rig.end()
    await rig.settle()
    for name in rig.fake.names("networkpolicies"):
        assert rig.fake.get("networkpolicies", name)["spec"]["ingress"] == [{}]


async def test_a_gateway_finds_the_groups_of_a_deployment_that_has_none_of_its_own(rig: Rig) -> None:
    other = a_deployment_body("code", model={"name": "glm-nano", "source": "builtin://glm-nano", "servedName": "coder"})
    other["metadata"]["labels"] = {"team": "blue"}
    rig.fake.put("glmdeployments", other)
    await rig.settle("code")
    assert "code-worker" not in rig.fake.names("services")
    set_spec(rig, gateway={"alsoServes": {"selector": {"matchLabels": {"team": "blue"}}}})
    await rig.settle()
    await rig.settle("code")
    assert rig.fake.get("services", "code-worker")["spec"]["clusterIP"] == "None"


async def test_a_deployment_of_somebody_else_cannot_stop_edits_of_a_gateway_by_its_name(rig: Rig) -> None:
    names_of_ours = [{"name": "coder", "arms": [{"to": "glm-nano"}]}]
    also = {"selector": {"matchLabels": {"team": "blue"}}}
    set_spec(rig, gateway={"alsoServes": also, "names": names_of_ours})
    await rig.settle()
    other = a_deployment_body("code", model={"name": "glm-nano", "source": "builtin://glm-nano", "servedName": "coder"})
    other["metadata"]["labels"] = {"team": "blue"}
    rig.fake.put("glmdeployments", other)
    await rig.settle("code")
    await rig.settle()
    status, reason, message = rig.condition("GatewayReady")
    assert (status, reason) == ("True", "NotServed")
    assert "code serves coder" in message


async def test_a_private_registry_gives_the_gateway_its_image_as_it_gives_the_groups_theirs(rig: Rig) -> None:
    set_spec(rig, engine={"imagePullSecrets": [{"name": "registry"}]})
    await rig.settle()
    pod = rig.fake.get("deployments", "chat-gateway")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


async def test_a_new_pod_of_a_gateway_goes_to_the_node_that_has_its_disk(rig: Rig) -> None:
    """A claim that is ReadWriteOnce is had by one node, and the old pod goes only once the new one is ready."""

    def pod() -> dict[str, Any]:
        found: dict[str, Any] = rig.fake.get("deployments", "chat-gateway")["spec"]["template"]["spec"]
        return found

    assert "affinity" not in pod()
    set_spec(rig, gateway={"usage": {"claimName": "usage"}})
    await rig.settle()
    (preferred,) = pod()["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"]["labelSelector"]["matchLabels"] == TO_GATEWAY
    set_spec(rig, gateway={"usage": {"claimName": "usage"}, "replicas": 2})  # then it is for several nodes
    await rig.settle()
    assert "affinity" not in pod()


async def test_a_group_that_never_came_up_keeps_no_node_from_its_drain() -> None:
    body = a_body(replicas=2, engine={"image": "missing:1"})
    async with a_rig(lambda fake: fake.put("glmdeployments", body)) as rig:

        def most_down() -> int:
            found: int = rig.fake.get("poddisruptionbudgets", "chat-worker")["spec"]["maxUnavailable"]
            return found

        await rig.settle()
        assert most_down() == 3
        set_spec(rig, engine={"image": "worker:1"})
        await rig.settle()
        assert most_down() == 1
        for name in ("chat-g0-0", "chat-g1-0"):  # it serves, or is coming back
            rig.fake.edit("pods", name, lambda pod: pod["status"].update({"conditions": []}))
        await rig.settle()
        assert most_down() == 1


async def test_a_gateway_that_a_hand_has_changed_is_as_it_was_again_unless_another_version_made_it(rig: Rig) -> None:
    def image() -> str:
        pod = rig.fake.get("deployments", "chat-gateway")["spec"]["template"]["spec"]
        return str(pod["containers"][0]["image"])

    def change() -> None:
        rig.fake.edit(
            "deployments",
            "chat-gateway",
            lambda item: item["spec"]["template"]["spec"]["containers"][0].update(image="theirs:1"),
        )

    set_spec(rig, gateway={"replicas": 2})  # which takes over the template that is there
    await rig.settle()
    change()
    await rig.settle()
    assert image() == "operator:1"

    restart = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    rig.fake.edit(
        "deployments",
        "chat-gateway",
        lambda item: item["spec"]["template"]["metadata"]["annotations"].update(restart),
    )
    await rig.settle()
    template = rig.fake.get("deployments", "chat-gateway")["spec"]["template"]
    assert restart.items() <= template["metadata"]["annotations"].items(), "kubectl rollout restart is no damage"

    rig.gateway_image = "operator:2"
    await rig.end()
    change()
    await rig.settle()
    assert image() == "theirs:1"


async def test_a_gateway_that_would_find_its_groups_by_a_service_of_somebody_else_is_not_ready() -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())
        fake.put("services", {"metadata": {"name": "chat-worker", "namespace": "models"}, "spec": {"selector": {}}})

    async with a_rig(prepare) as rig:
        await rig.settle()
        assert rig.condition("GatewayReady")[:2] == ("False", "NameConflict")
        assert rig.condition("Ready")[:2] == ("False", "NameConflict")


STORIES: dict[str, Story] = {
    "create": lambda rig: None,
    "limits": lambda rig: set_spec(rig, access={"limits": {"default": {"requestsPerMinute": 5}}}),
    "auth": lambda rig: set_spec(rig, access={"auth": "None"}),
    "more replicas": lambda rig: set_spec(rig, gateway={"replicas": 3}),
    "off": lambda rig: set_spec(rig, gateway={"enabled": False}),
    "lost deployment": lambda rig: rig.fake.delete(("deployments", "models", "chat-gateway")),
    "lost file": lambda rig: rig.fake.delete(("configmaps", "models", "chat-gateway")),
    "lost service": lambda rig: rig.fake.delete(("services", "models", "chat")),
    "lost role": lambda rig: rig.fake.delete(("roles", "models", "chat-gateway")),
    "lost records": forget_records,
}


async def tell(name: str, dies_after: int | None = None) -> tuple[dict[str, Any], int]:
    async with a_rig(lambda fake: fake.put("glmdeployments", a_body())) as rig:
        if name != "create":
            await rig.settle()
        STORIES[name](rig)
        rig.writes, rig.dies_after = 0, dies_after
        await rig.settle()
        ended, writes = rig.end_state(), rig.writes
        await rig.settle()
        assert rig.writes == writes, "what is settled is left alone"
        return ended, writes


@pytest.mark.parametrize("name", short_of(STORIES, 2))
async def test_an_operator_killed_after_any_write_leaves_the_gateway_as_one_that_was_not(name: str) -> None:
    expected, num_writes = await tell(name)
    assert num_writes > 0
    for dies_after in range(1, num_writes + 1):
        ended, _ = await tell(name, dies_after)
        assert ended == expected, f"killed after write {dies_after} of {num_writes}"


GOOD: list[dict[str, Any]] = [
    {"access": {"auth": "APIKeys"}},
    {"access": {"auth": "None"}},
    {"access": {"keysSecretRef": {"name": "team"}}},
    {"access": {"limits": {"default": {"concurrency": 2}}}},
    {"gateway": {"replicas": 2}},
    {"gateway": {"tlsSecretRef": {"name": "tls"}}},
    {"gateway": {"usage": {"claimName": "usage"}}},
    {"replicas": 2},
]
"""None moves a group: who edits that and loses the records as well gets what the groups are made from."""

BAD: list[dict[str, Any]] = [
    {"gateway": {"replicas": 0}},
    {"gateway": {"names": [{"name": "a", "arms": [{"to": "typo"}]}]}},
    {"access": {"auth": "OIDC"}},
    {"parallelism": {"tensor": 1, "expert": 3}},
]
OURS = ("deployments", "configmaps", "roles", "rolebindings", "services", "serviceaccounts", "poddisruptionbudgets",
        "networkpolicies", "pods")  # fmt: skip


def something_happens(rig: Rig, chance: random.Random) -> None:
    match chance.choice(["good", "good", "bad", "hand", "hand", "records", "forgets", "dies"]):
        case "good":
            set_spec(rig, **chance.choice(GOOD))
        case "bad":
            set_spec(rig, **chance.choice(BAD))
        case "hand":
            plural = chance.choice(OURS)
            if found := rig.fake.names(plural):
                rig.fake.delete((plural, "models", chance.choice(found)))
        case "records":
            forget_records(rig)
        case "forgets":
            rig.fake.edit("glmdeployments", "chat", lambda body: body["spec"].pop("access", None))
        case "dies":
            rig.writes, rig.dies_after = 0, chance.randint(1, 12)


def what_there_is(rig: Rig) -> dict[str, Any]:
    """Return all objects but the deployment, whose conditions tell of the way, and pods of the gateway: nobody rolls
    them in the fake.
    """
    others = ("glmdeployments/", "pods/chat-gateway")
    return {key: value for key, value in rig.end_state().items() if not key.startswith(others)}


async def ends_as(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what a deployment comes to that never was another one."""
    async with a_rig(lambda fake: fake.put("glmdeployments", a_body(**spec))) as rig:
        await rig.settle()
        return what_there_is(rig)


@pytest.mark.parametrize("seed", short_of(range(12), 3))
async def test_whatever_happens_nobody_gets_past_a_gateway_and_the_end_is_that_of_the_last_spec(seed: int) -> None:
    # A number of gateways that is left out is somebody else's, whoever said it before.
    chance, last = random.Random(seed), {"access": {"auth": "APIKeys"}, "replicas": 2, "gateway": {"replicas": 1}}
    async with a_rig(lambda fake: fake.put("glmdeployments", a_body(access={"auth": "APIKeys"}))) as rig:
        await rig.settle()
        for _ in range(12):
            something_happens(rig, chance)
            with contextlib.suppress(Died, Unavailable):
                await rig.run_pass()
            if "chat" in rig.fake.names("services"):
                assert selector(rig) == TO_GATEWAY
            if chance.random() < 0.5:
                rig.fake.step()
        rig.dies_after = None
        rig.fake.edit("glmdeployments", "chat", lambda body: body.update(spec=a_body(**last)["spec"]))
        await rig.settle()
        assert what_there_is(rig) == await ends_as(last)
        writes = rig.writes
        await rig.settle()
        assert rig.writes == writes
