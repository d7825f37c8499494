"""When groups speak TLS with their gateway, and when they do not, in real passes: nobody is led where none can ask."""

import copy
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from glm_operator import names
from integration.certificates_world import (
    a_body,
    a_certified_rig,
    adopt,
    an_upgraded_rig,
    other_template,
    pod_spec,
    refuse_secrets,
    replace_gateway,
    speaks_tls,
    volumes,
)
from integration.fake_kubernetes import FakeKubernetes
from integration.operator_rig import Rig, a_rig, revisions, set_spec, uids
from integration.test_operator_gateway import TO_GATEWAY, TO_GROUPS, selector


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_certified_rig() as made:
        yield made


async def test_groups_of_before_stay_plain_until_an_edit_and_the_gateway_serves_both() -> None:
    async with an_upgraded_rig() as rig:
        pods = uids(rig, "statefulsets")
        await rig.settle()
        assert uids(rig, "statefulsets") == pods
        assert not speaks_tls(rig)
        replace_gateway(rig)
        await rig.settle()
        assert rig.condition("UpToDate")[1] == "NewerRendering"
        assert "workers" in volumes(pod_spec(rig, "deployments", "chat-gateway"))
        set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
        await rig.settle()
        assert speaks_tls(rig)


async def test_no_group_speaks_tls_while_a_pod_of_the_gateway_could_not_ask_it() -> None:
    """As where a quota keeps the gateway's new pod: groups would move on one by one, and the old pod find none."""
    async with an_upgraded_rig() as rig:
        set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
        await rig.settle()
        assert "workers" in volumes(pod_spec(rig, "deployments", "chat-gateway"))
        assert not speaks_tls(rig)
        assert rig.condition("UpToDate")[1] == "UpToDate"
        evicted = copy.deepcopy(rig.fake.get("pods", "chat-gateway-0x"))
        evicted["metadata"] |= {"name": "evicted", "uid": "evicted"}
        rig.fake.put("pods", {**evicted, "status": {"phase": "Failed", "reason": "Evicted"}})
        replace_gateway(rig)
        await rig.settle()
        assert rig.condition("UpToDate")[1] == "NewerRendering"
        adopt(rig)
        await rig.settle()
        assert speaks_tls(rig)


async def test_groups_that_serve_are_not_replaced_by_some_that_would_wait_for_a_secret() -> None:
    """As after an upgrade where somebody else gives the rights: with one group an edit would end the service."""
    async with an_upgraded_rig() as rig:
        rig.fake.before_write = refuse_secrets
        await rig.settle()
        replace_gateway(rig)
        set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
        await rig.settle()
        assert not speaks_tls(rig)
        assert rig.condition("GatewayReady")[:2] == ("True", "CertificatesFailed")
        rig.fake.before_write = lambda _: None
        rig.now += timedelta(minutes=2)
        await rig.settle()
        assert rig.condition("UpToDate")[1] == "NewerRendering"
        mark = rig.fake.get("pods", "chat-gateway-0x")["metadata"]["annotations"].get(names.CERTIFICATE_ANNOTATION)
        assert mark, "its gateway is told"
        adopt(rig)
        await rig.settle()
        assert speaks_tls(rig)


async def test_no_group_speaks_tls_while_a_gateway_of_another_deployment_could_not_ask_it() -> None:
    serves_blue = {"alsoServes": {"selector": {"matchLabels": {"team": "blue"}}}}

    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body(gateway=serves_blue))
        blue = a_body("blue")
        fake.put("glmdeployments", {**blue, "metadata": {**blue["metadata"], "labels": {"team": "blue"}}})

    async with a_rig(prepare) as rig:
        await rig.settle()
        await rig.settle("blue")
        await rig.end()
        rig.certificates = True
        await rig.settle()
        await rig.settle("blue")
        rig.fake.delete(("pods", "models", "blue-gateway-0x"))
        set_spec(rig, "blue", engine={"limits": {"maxNumSeqs": 4}})
        await rig.settle("blue")
        assert not speaks_tls(rig, "blue-g0")
        replace_gateway(rig)
        set_spec(rig, "blue", engine={"limits": {"maxNumSeqs": 5}})
        await rig.settle("blue")
        assert speaks_tls(rig, "blue-g0")


async def test_an_automatic_adoption_waits_for_the_gateway_and_moves_groups_once() -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body(rollout={"adopt": "Automatic"}))

    async with a_rig(prepare) as rig:
        await rig.settle()
        before = revisions(rig, "statefulsets")
        with pytest.MonkeyPatch.context() as patch:  # this version renders something else as well
            patch.setattr("glm_operator.rollout.records.group_template", other_template)
            await rig.end()
            rig.certificates = True
            for _ in range(5):
                await rig.run_pass()
            assert revisions(rig, "statefulsets") == before
            assert "waits until each pod of the gateway has its certificate" in rig.condition("UpToDate")[2]
            replace_gateway(rig)
            await rig.settle()
            assert speaks_tls(rig)
            assert len(rig.fake.names("controllerrevisions")) == 2


async def test_without_certificates_groups_that_speak_tls_are_served_until_they_are_moved(rig: Rig) -> None:
    await rig.end()
    rig.certificates = False
    await rig.settle()
    assert speaks_tls(rig)
    assert "workers" in volumes(pod_spec(rig, "deployments", "chat-gateway"))
    status, reason, message = rig.condition("GatewayReady")
    assert (status, reason) == ("True", "GroupsSpeakTLS")
    assert "kubectl glm rollout adopt chat" in message
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
    await rig.settle()
    assert not speaks_tls(rig)
    assert "workers" not in volumes(pod_spec(rig, "deployments", "chat-gateway"))
    assert rig.condition("GatewayReady")[1] == "GatewayServes"


async def test_a_gateway_that_is_not_wanted_stays_until_groups_can_be_asked_without_it(rig: Rig) -> None:
    set_spec(rig, gateway={"enabled": False})
    await rig.settle()
    assert selector(rig) == TO_GATEWAY
    status, reason, message = rig.condition("GatewayReady")
    assert (status, reason) == ("True", "GroupsSpeakTLS")
    assert "gateway.enabled is false" in message
    adopt(rig)
    await rig.settle()
    assert not speaks_tls(rig)
    assert selector(rig) == TO_GROUPS
    assert rig.condition("GatewayReady")[1] == "GatewayDisabled"


@pytest.mark.parametrize("by_name", [False, True], ids=["by an edit", "by undo"])
@pytest.mark.parametrize("without", ["certificates", "gateway"])
async def test_nobody_goes_back_to_groups_that_speak_tls_where_none_can_ask_them(
    rig: Rig, without: str, by_name: bool
) -> None:
    first: dict[str, Any] = {"limits": {"maxNumSeqs": 8}}
    set_spec(rig, engine=first)
    await rig.settle()
    with_tls = revisions(rig, "statefulsets")["chat-g0"]
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
    await rig.settle()
    assert speaks_tls(rig)
    if without == "gateway":
        set_spec(rig, gateway={"enabled": False})
    else:
        await rig.end()
        rig.certificates = False
    await rig.settle()
    adopt(rig)
    await rig.settle()
    asked = {names.ADOPT_ANNOTATION: with_tls} if by_name else {}
    rig.fake.edit("glmdeployments", "chat", lambda body: body["metadata"].setdefault("annotations", {}).update(asked))
    set_spec(rig, engine=first)
    await rig.settle()
    assert not speaks_tls(rig)
    assert selector(rig) == (TO_GROUPS if without == "gateway" else TO_GATEWAY)
    assert rig.condition("UpToDate")[:2] == ("True", "UpToDate")
    assert (f"{with_tls}, which was asked for by name, is not taken" in rig.condition("UpToDate")[2]) == by_name


async def test_groups_go_back_to_tls_where_their_gateway_can_ask_them(rig: Rig) -> None:
    first: dict[str, Any] = {"limits": {"maxNumSeqs": 8}}
    set_spec(rig, engine=first)
    await rig.settle()
    before = revisions(rig, "statefulsets")["chat-g0"]
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}})
    await rig.settle()
    set_spec(rig, engine=first)
    await rig.settle()
    assert speaks_tls(rig)
    assert revisions(rig, "statefulsets")["chat-g0"] == before, "the very template that was kept"
