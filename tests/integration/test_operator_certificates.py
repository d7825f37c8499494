"""Certificates between a gateway and its groups in real passes: when they are made, renewed, and what else goes on."""

import asyncio
import base64
import copy
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from glm_operator import names
from glm_operator.reconcile.certificates.keeper import Certificates
from glm_operator.render import group_template
from integration.fake_kubernetes import FakeKubernetes, Refused
from integration.operator_rig import Rig, a_deployment_body, a_rig, revisions, set_spec, uids
from integration.test_operator_gateway import TO_GATEWAY, TO_GROUPS, selector

KEYS = {"auth": "APIKeys"}
LEAFS = ["chat-worker-client-tls", "chat-worker-tls"]
DAY = timedelta(days=1)


def a_body(name: str = "chat", **spec: Any) -> dict[str, Any]:
    body = a_deployment_body(name, **{"access": KEYS, **spec})
    if "gateway" not in spec:
        del body["spec"]["gateway"]
    return body


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())

    async with a_rig(prepare) as made:
        made.certificates, made.now = True, datetime.now(UTC)
        await made.settle()
        yield made


def certificate(rig: Rig, secret: str, item: str = "tls.crt") -> x509.Certificate:
    text = base64.b64decode(rig.fake.get("secrets", secret)["data"][item])
    return x509.load_pem_x509_certificates(text)[-1]


def serials(rig: Rig) -> list[int]:
    return [certificate(rig, leaf).serial_number for leaf in LEAFS]


def pod_spec(rig: Rig, plural: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = rig.fake.get(plural, name)["spec"]["template"]["spec"]
    return found


def volumes(spec: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("secret") for each in spec["volumes"]}


def speaks_tls(rig: Rig, group: str = "chat-g0") -> bool:
    (container,) = pod_spec(rig, "statefulsets", group)["containers"]
    return "https" in [port["name"] for port in container["ports"]]


def adopt(rig: Rig) -> None:
    message = rig.condition("UpToDate")[2]
    rig.fake.edit(
        "glmdeployments",
        "chat",
        lambda body: (
            body["metadata"].setdefault("annotations", {}).update({names.ADOPT_ANNOTATION: newer_revision(message)})
        ),
    )


def refuse_secrets(what: str) -> None:
    if "secrets" in what:
        raise Refused(403, "Forbidden", 'secrets is forbidden: User "x" cannot create resource "secrets"')


def replace_gateway(rig: Rig) -> None:
    """Have the Deployment's controller make the gateway's pod anew, which the fake one does not of itself."""
    rig.fake.delete(("pods", "models", "chat-gateway-0x"))
    rig.fake.step()


def other_template(*args: Any, **options: Any) -> dict[str, Any]:
    template = group_template(*args, **options)
    return {**template, "spec": {**template["spec"], "podManagementPolicy": "OrderedReady"}}


def newer_revision(message: str) -> str:
    return next(word.strip(".,;()") for word in message.split() if len(word.strip(".,;()")) == 10 and word[0] in HEX)


HEX = "0123456789abcdef"


async def test_a_new_deployment_speaks_tls_inside_and_its_secrets_go_with_it(rig: Rig) -> None:
    assert rig.fake.names("secrets") == ["chat-worker-client-tls", "chat-worker-tls", "glm-authority"]
    group = pod_spec(rig, "statefulsets", "chat-g0")
    assert volumes(group)["tls"] == {"secretName": "chat-worker-tls", "defaultMode": 0o440}
    assert speaks_tls(rig)
    (container,) = group["containers"]
    assert container["args"] == ["serve", "--tls-folder", "/etc/glm/tls"]
    gateway = volumes(pod_spec(rig, "deployments", "chat-gateway"))["workers"]
    assert gateway == {"secretName": "chat-worker-client-tls", "defaultMode": 0o440, "optional": True}
    file = json.loads(rig.fake.get("configmaps", "chat-gateway")["data"]["gateway.json"])
    assert file["workers"] == {"tlsFolder": "/etc/glm/workers"}
    ports = {port["name"]: port["targetPort"] for port in rig.fake.get("services", "chat-worker")["spec"]["ports"]}
    assert ports == {"http": "http", "https": "https", "management": "management"}
    assert rig.condition("Ready")[:2] == ("True", "AllGroupsReady")
    rig.fake.delete(("glmdeployments", "models", "chat"))
    rig.fake.step()
    assert rig.fake.names("secrets") == []


async def test_no_pod_mounts_the_authority_and_each_leaf_is_for_one_use(rig: Rig) -> None:
    for plural, name in (("statefulsets", "chat-g0"), ("deployments", "chat-gateway")):
        mounted = [each["secretName"] for each in volumes(pod_spec(rig, plural, name)).values() if each]
        assert names.AUTHORITY_SECRET not in mounted
    for leaf, use in zip(LEAFS, ("clientAuth", "serverAuth"), strict=True):
        found = certificate(rig, leaf).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert [each._name for each in found] == [use]
        assert set(rig.fake.get("secrets", leaf)["data"]) == {"ca.crt", "tls.crt", "tls.key"}


async def test_passes_read_three_secrets_in_ten_minutes_and_none_else(rig: Rig) -> None:
    await rig.run_pass()
    before = rig.reads
    for _ in range(5):
        assert not (await rig.run_pass()).changed
    assert rig.reads == before
    rig.now += timedelta(minutes=11)
    assert not (await rig.run_pass()).changed
    assert rig.reads == before + 3


async def test_leafs_are_renewed_and_pods_are_told_and_none_is_replaced(rig: Rig) -> None:
    before, pods = serials(rig), uids(rig)
    rig.now += 59 * DAY
    await rig.settle()
    assert serials(rig) == before
    rig.now += 2 * DAY
    await rig.settle()
    assert not set(serials(rig)) & set(before)
    assert uids(rig) == pods
    marks = [rig.fake.get("pods", pod)["metadata"]["annotations"].get(names.CERTIFICATE_ANNOTATION) for pod in pods]
    assert all(marks)


async def test_deleted_leafs_are_made_again_when_the_deployment_is_edited(rig: Rig) -> None:
    before, pods = serials(rig), uids(rig)
    for leaf in LEAFS:
        rig.fake.delete(("secrets", "models", leaf))
    set_spec(rig, slo={"classes": []})
    await rig.settle()
    assert not set(serials(rig)) & set(before)
    assert uids(rig) == pods


async def test_a_leaf_that_is_gone_when_a_pod_needs_it_is_made_within_half_a_minute(rig: Rig) -> None:
    rig.fake.delete(("secrets", "models", "chat-worker-tls"))
    rig.now += timedelta(seconds=31)
    await rig.run_pass()
    assert "chat-worker-tls" not in rig.fake.names("secrets"), "nobody waits for it"
    rig.fake.edit("pods", "chat-g0-0", lambda pod: pod["status"]["conditions"].pop())  # Ready
    await rig.run_pass()
    assert "chat-worker-tls" in rig.fake.names("secrets")


async def test_a_certificate_that_is_gone_when_the_gateway_starts_anew_is_made_within_half_a_minute(rig: Rig) -> None:
    rig.fake.delete(("secrets", "models", "chat-worker-client-tls"))
    rig.now += timedelta(seconds=31)
    await rig.run_pass()
    assert "chat-worker-client-tls" not in rig.fake.names("secrets"), "the pod has what it had"
    rig.fake.edit("pods", "chat-gateway-0x", lambda pod: pod["status"]["conditions"].pop())  # Ready
    await rig.run_pass()
    assert "chat-worker-client-tls" in rig.fake.names("secrets")


async def test_a_root_that_ends_within_a_year_gets_one_after_it_that_signs_a_day_later(rig: Rig) -> None:
    first = certificate(rig, "glm-authority", "ca.crt")
    for _ in range(3286 // 50):
        rig.now += 50 * DAY
        await rig.settle()
    rig.now = first.not_valid_after_utc - 364 * DAY
    await rig.settle()
    following = certificate(rig, "glm-authority", "ca.crt")
    assert following != first
    assert certificate(rig, "chat-worker-tls", "ca.crt") == following, "it is trusted at once"
    certificate(rig, "chat-worker-tls").verify_directly_issued_by(first)
    rig.now += 61 * DAY
    await rig.settle()
    certificate(rig, "chat-worker-tls").verify_directly_issued_by(following)
    certificate(rig, "chat-worker-client-tls").verify_directly_issued_by(following)


async def test_deployments_of_a_namespace_share_an_authority_that_goes_with_the_last(rig: Rig) -> None:
    rig.fake.put("glmdeployments", a_body("second"))
    await rig.settle("second")
    root = certificate(rig, "glm-authority", "ca.crt")
    certificate(rig, "second-worker-tls").verify_directly_issued_by(root)
    rig.fake.delete(("glmdeployments", "models", "chat"))
    rig.fake.step()
    assert rig.fake.names("secrets") == ["glm-authority", "second-worker-client-tls", "second-worker-tls"]
    rig.fake.delete(("glmdeployments", "models", "second"))
    rig.fake.step()
    assert rig.fake.names("secrets") == []


async def test_without_the_right_everything_else_goes_on_and_the_condition_says_so(rig: Rig) -> None:
    rig.fake.before_write = refuse_secrets
    for leaf in LEAFS:
        rig.fake.delete(("secrets", "models", leaf))
    set_spec(rig, engine={"limits": {"maxNumSeqs": 4}}, replicas=2)
    await rig.settle()
    status, reason, message = rig.condition("GatewayReady")
    assert (status, reason) == ("True", "CertificatesFailed")
    assert "cannot create resource" in message
    assert {"chat-g0-0", "chat-g1-0"} <= uids(rig).keys()
    outcome = await rig.run_pass()
    assert outcome.due_at is not None
    assert outcome.due_at <= rig.now + timedelta(minutes=1)
    rig.fake.before_write = lambda _: None
    rig.now += timedelta(minutes=2)
    await rig.settle()
    assert rig.condition("GatewayReady")[1] == "GatewayServes"


@pytest.mark.parametrize("name", ["glm-authority", "chat-worker-tls", "chat-worker-client-tls"])
async def test_a_secret_of_somebody_else_is_left_alone(name: str) -> None:
    theirs = {"metadata": {"name": name, "namespace": "models"}, "data": {"tls.crt": "dGhlaXJz"}}

    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())
        fake.put("secrets", theirs)

    async with a_rig(prepare) as rig:
        rig.certificates = True
        await rig.settle()
        assert rig.fake.get("secrets", name)["data"] == {"tls.crt": "dGhlaXJz"}
        _, reason, message = rig.condition("GatewayReady")
        assert reason == "CertificatesFailed"
        assert f"Secret {name} is somebody else's" in message


async def test_an_authority_that_cannot_be_read_is_kept_until_somebody_deletes_it(rig: Rig) -> None:
    rig.fake.edit("secrets", "glm-authority", lambda secret: secret["data"].update({"ca.key": "eA=="}))
    rig.now += timedelta(minutes=11)
    await rig.settle()
    assert "Secret glm-authority: " in rig.condition("GatewayReady")[2]
    before = serials(rig)
    rig.fake.delete(("secrets", "models", "glm-authority"))
    rig.now += timedelta(minutes=2)
    await rig.settle()
    assert rig.condition("GatewayReady")[1] == "GatewayServes"
    assert not set(serials(rig)) & set(before)


async def test_many_new_deployments_at_a_time_share_an_authority_that_all_of_them_own(rig: Rig) -> None:
    bodies = [rig.fake.put("glmdeployments", a_body(f"new-{number}")) for number in range(20)]
    keeper = Certificates(rig.kube, now=lambda: rig.now)
    found = await asyncio.gather(*(keeper.ensure(body) for body in bodies))
    assert [each.trouble for each in found] == [None] * 20
    root = certificate(rig, "glm-authority", "ca.crt")
    for number in range(20):
        certificate(rig, f"new-{number}-worker-tls").verify_directly_issued_by(root)
    owners = rig.fake.get("secrets", "glm-authority")["metadata"]["ownerReferences"]
    assert {owner["name"] for owner in owners} == {"chat", *(f"new-{number}" for number in range(20))}
    assert keeper.ends.keys() == {("models", f"new-{number}") for number in range(20)}


async def test_two_operators_that_make_one_authority_at_a_time_agree(rig: Rig) -> None:
    """The other one is faster by a moment: ours reads again, and signs by what is there."""
    for secret in (*LEAFS, "glm-authority"):
        rig.fake.delete(("secrets", "models", secret))
    rig.fake.put("glmdeployments", a_body("second"))
    await rig.settle("second")
    faster = rig.fake.get("secrets", "glm-authority")
    rig.fake.delete(("secrets", "models", "glm-authority"))
    made: list[str] = []

    def race(what: str) -> None:
        if what == "POST secrets" and not made:
            made.append(what)
            rig.fake.put("secrets", faster)

    rig.fake.before_write = race
    set_spec(rig, slo={"classes": []})
    await rig.settle()
    assert made
    root = certificate(rig, "glm-authority", "ca.crt")
    certificate(rig, "chat-worker-tls").verify_directly_issued_by(root)
    certificate(rig, "second-worker-tls").verify_directly_issued_by(root)


@pytest.mark.parametrize("writes", range(1, 7))
async def test_an_operator_that_dies_between_its_writes_goes_on_when_it_starts_again(writes: int) -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())

    async with a_rig(prepare) as rig:
        rig.certificates, rig.now, rig.dies_after = True, datetime.now(UTC), writes
        await rig.settle()
        root = certificate(rig, "glm-authority", "ca.crt")
        for leaf in LEAFS:
            certificate(rig, leaf).verify_directly_issued_by(root)
        assert rig.condition("GatewayReady")[1] == "GatewayServes"


async def test_groups_of_before_stay_plain_until_an_edit_and_the_gateway_serves_both() -> None:
    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())

    async with a_rig(prepare) as rig:
        await rig.settle()
        pods = uids(rig, "statefulsets")
        await rig.end()
        rig.certificates = True
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

    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())

    async with a_rig(prepare) as rig:
        await rig.settle()
        await rig.end()
        rig.certificates = True
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

    def prepare(fake: FakeKubernetes) -> None:
        fake.put("glmdeployments", a_body())

    async with a_rig(prepare) as rig:
        await rig.settle()
        await rig.end()
        rig.certificates = True
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
