"""Certificates between a gateway and its groups in real passes: when they are made, renewed, and what else goes on."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from glm_operator import names
from glm_operator.reconcile.certificates.keeper import Certificates
from integration.certificates_world import (
    DAY,
    LEAFS,
    a_body,
    a_certified_rig,
    certificate,
    pod_spec,
    refuse_secrets,
    serials,
    speaks_tls,
    volumes,
)
from integration.fake_kubernetes import FakeKubernetes
from integration.operator_rig import Rig, a_rig, set_spec, uids


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with a_certified_rig() as made:
        yield made


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
