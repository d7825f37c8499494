"""Stories of one who asks all along, with a key, while everything about the gateway and its groups changes."""

import json
import random
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import openai
import pytest

from e2e import version_before
from e2e.chats import QUESTION, RIGHT, Asked, asking_all_along
from e2e.conftest import KEYS_SECRET, MODEL_NAMESPACE
from e2e.deployments import Deployed, ask, nano, wait_for
from e2e.kubectl_glm import kubectl_glm, printed
from e2e.operator_release import Release
from e2e.other_operators import running
from glm_operator import names

NUM_CLIENTS = 4
"""Of the short stories; those of many minutes have MANY."""

MANY = 8


def asking(deployed: Deployed, num_clients: int = NUM_CLIENTS) -> Any:
    return asking_all_along(deployed, num_clients=num_clients, question=QUESTION, right=RIGHT)


def assert_all_answered(asked: Asked, least: int = NUM_CLIENTS) -> None:
    assert asked.failures == []
    assert asked.num_right >= least


def test_nobody_without_a_key_is_answered(pair: Deployed) -> None:
    with replace(pair, key="sk-mistyped").client() as client, pytest.raises(openai.AuthenticationError):
        ask(client)


@pytest.mark.long  # tests/e2e/test_traffic.py has a short one
def test_groups_come_and_go_and_nobody_notices(pair: Deployed) -> None:
    with asking(pair, MANY) as asked:
        for replicas in (3, 1, 3, 2):
            pair.scale(replicas)
            pair.wait_settled(f"{replicas}/{replicas}")
    assert_all_answered(asked)


def test_every_pod_of_the_gateway_is_replaced_and_nobody_notices(pair: Deployed) -> None:
    before = {pod["metadata"]["uid"] for pod in pair.pods("gateway")}
    with asking(pair) as asked:
        pair.patch(gateway={"resources": {"requests": {"memory": "200Mi"}}})
        wait_for("other pods of the gateway", lambda: _all_others(pair, before), timeout_s=180)
    assert_all_answered(asked)


def test_groups_are_spoken_to_by_certificates_alone_which_are_renewed_and_nobody_notices(pair: Deployed) -> None:
    pods, certificates = pair.pod_uids(), _certificates(pair)
    for pod in pods:
        assert _tried_at_port_of_requests(pair, pod) == {
            "plain": "refused",
            "tls": "refused",
            "tls of workers": "refused",
        }
        assert pair.group(pod)["state"] == "serving", "the management port is as it was"
    assert "2/2" in kubectl_glm(pair.target, "status", "pair", "-n", MODEL_NAMESPACE, "--once")
    with asking(pair) as asked:
        for name in certificates:
            pair.target.kubectl("delete", "secret", name, "-n", MODEL_NAMESPACE)
        pair.patch(rollout={"progressDeadlineSeconds": 31})
        wait_for("other certificates", lambda: _are_others(certificates, _certificates(pair)), timeout_s=60)
        wait_for("them in the pods", lambda: _have_mounted(pair, pods), timeout_s=30)
        right = asked.num_right
        wait_for("answers by them", lambda: asked.num_right >= right + 2 * NUM_CLIENTS, timeout_s=60)
    assert_all_answered(asked)
    assert pair.pod_uids() == pods
    pair.patch(rollout={"progressDeadlineSeconds": 30})


def _certificates(deployed: Deployed) -> dict[str, str]:
    """Return the certificate of each of its Secrets; LookupError while one of them is not there."""
    names = [f"{deployed.name}-worker-tls", f"{deployed.name}-worker-client-tls"]
    found = {
        each["metadata"]["name"]: each["data"]["tls.crt"]
        for each in deployed.target.items("secrets", deployed.namespace)
        if each["metadata"]["name"] in names
    }
    if found.keys() != set(names):
        raise LookupError(f"of {names} there are {list(found)}")
    return found


def _are_others(before: dict[str, str], after: dict[str, str]) -> bool:
    return not set(before.values()) & set(after.values())


def _have_mounted(deployed: Deployed, pods: dict[str, str]) -> bool:
    """Tell whether each worker shows what is in the Secret now."""
    now = b64decode(_certificates(deployed)[f"{deployed.name}-worker-tls"]).decode()
    shown = ("cat", "/etc/glm/tls/tls.crt")
    return all(deployed.run(pod, *shown).strip() == now.strip() for pod in pods)


def _tried_at_port_of_requests(deployed: Deployed, pod: str) -> dict[str, str]:
    """Return what becomes of one who asks a worker from inside its pod: the answer's status, or: refused."""
    found: dict[str, str] = json.loads(deployed.run(pod, "python3", "-c", ASK_WORKER))
    return found


ASK_WORKER = """
import http.client, json, ssl

def ask(connection):
    try:
        connection.request("GET", "/v1/models")
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return "refused"

def tls(*pair):
    context = ssl.create_default_context(cafile="/etc/glm/tls/ca.crt")
    context.check_hostname = False
    if pair:
        context.load_cert_chain(*pair)
    return http.client.HTTPSConnection("127.0.0.1", 8000, timeout=10, context=context)

print(json.dumps({
    "plain": ask(http.client.HTTPConnection("127.0.0.1", 8000, timeout=10)),
    "tls": ask(tls()),
    "tls of workers": ask(tls("/etc/glm/tls/tls.crt", "/etc/glm/tls/tls.key")),
}))
"""


def test_a_key_is_rotated_and_nobody_notices_who_takes_the_new_one_in_time(pair: Deployed) -> None:
    keys = ("-n", MODEL_NAMESPACE, "--secret", KEYS_SECRET)
    second = printed(pair.target, "keys", "create", "second", *keys)
    rotating = replace(pair, key=second)
    wait_for("both keys at both pods", lambda: _num_keys(pair) == [2, 2], timeout_s=60)
    with asking(rotating) as asked:
        before = _notes_of_keys(pair)
        newest = printed(pair.target, "keys", "rotate", "second", "--keep", "1h", *keys)
        told = _notes_of_keys(pair)
        assert all(told[pod] not in (None, before[pod]) for pod in before), "the kubelet was told to bring the keys now"
        replace(pair, key=newest).wait_answers()
    assert_all_answered(asked, least=1)
    kubectl_glm(pair.target, "keys", "revoke", "second", *keys)
    wait_for("both secrets refused", lambda: _is_refused(pair, second) and _is_refused(pair, newest), timeout_s=60)
    assert pair.answers_right()


def test_a_rank_that_is_killed_in_the_middle_of_streams_costs_no_client_anything(pair: Deployed) -> None:
    with asking(pair) as asked:
        wait_for("answers", lambda: asked.num_right >= NUM_CLIENTS, timeout_s=120)
        pair.signal_rank("pair-g0-0", 0, 9)
        right = asked.num_right
        wait_for("answers after it", lambda: asked.num_right >= right + 2 * NUM_CLIENTS, timeout_s=120)
    assert_all_answered(asked)


def test_a_deployment_without_groups_is_woken_by_requests_that_wait_and_sleeps_again(release: Release) -> None:
    manifest = nano("sleeper", MODEL_NAMESPACE, ranks_per_pod=1, ranks=1)
    manifest["spec"] |= {"replicas": 0, "scaling": {"min": 0, "max": 1, "zero": {"idleAfter": "10s"}}}
    release.target.apply(manifest)
    sleeper = Deployed(release.target, "sleeper", MODEL_NAMESPACE)
    wait_for("its gateway", lambda: sleeper.condition("GatewayReady")["status"] == "True", timeout_s=120)
    # A client's own limit is a minute; comments keep the stream alive meanwhile.
    with sleeper.client() as client:
        wait_for("the Service", lambda: client.models.list().data, timeout_s=60)  # which wakes nobody
        assert sleeper.pods() == []
        began = time.monotonic()
        with ThreadPoolExecutor(MANY) as threads:
            answers = list(threads.map(lambda _: ask(client)[1], range(MANY)))
        assert all("42" in answer for answer in answers)
    print(f"{MANY} answered from zero after {time.monotonic() - began:.1f} s")
    wait_for("no group again", lambda: sleeper.spec()["replicas"] == 0 and not sleeper.pods(), timeout_s=180)
    sleeper.delete()


@pytest.fixture
def elder_namespace(release: Release) -> Iterator[str]:
    """A namespace of its own: an operator of the version before would take the gateways of others away."""
    namespace = f"{MODEL_NAMESPACE}-elder"
    release.target.kubectl("create", "namespace", namespace)
    yield namespace
    # First what is in it: an operator that looks at it while it goes is refused to make things there, as it should be.
    Deployed(release.target, "elder", namespace).delete()
    release.target.kubectl("delete", "namespace", namespace, timeout_s=180)


@pytest.mark.long
@pytest.mark.alone
def test_clients_of_a_deployment_from_before_gateways_notice_nothing_of_the_upgrade_nor_of_its_gateway(
    release: Release, pair: Deployed, elder_namespace: str
) -> None:
    if release.target.cluster is None:
        pytest.skip("an operator of another version runs beside our own cluster only")
    elder = Deployed(release.target, "elder", elder_namespace)
    manifest = nano("elder", elder_namespace, ranks_per_pod=1, ranks=1)
    del manifest["spec"]["access"]
    image = pair.pods()[0]["spec"]["containers"][0]["image"]
    release.scale(0)
    try:
        with running(version_before, release.target.cluster, image, "--namespaces", elder_namespace):
            release.target.apply(manifest)
            elder.wait_settled("1/1")
            elder.wait_answers()
    finally:
        release.scale(1)
    before = elder.pod_uids()
    with asking_all_along(elder) as asked:
        wait_for("AuthNotSaid", lambda: elder.condition("GatewayReady")["reason"] == "AuthNotSaid", timeout_s=60)
        assert elder.condition("UpToDate")["reason"] == "NewerRendering"
        elder.patch(access={"auth": "None"})
        wait_for("its gateway", lambda: elder.condition("GatewayReady")["status"] == "True", timeout_s=120)
        wait_for("the Service led to it", lambda: _leads_to_gateway(elder), timeout_s=60)
        right = asked.num_right
        wait_for("answers through it", lambda: asked.num_right >= right + 5, timeout_s=60)
        assert elder.pod_uids() == before
        wait_for("PlainGroups", lambda: elder.condition("GatewayReady")["reason"] == "PlainGroups", timeout_s=60)
        kubectl_glm(elder.target, "rollout", "adopt", "elder", "-n", elder_namespace)
        wait_for("UpToDate", lambda: elder.condition("UpToDate")["reason"] == "UpToDate", timeout_s=180)
        elder.wait_settled("1/1")
        (group,) = elder.pods()
        assert "https" in [port["name"] for port in group["spec"]["containers"][0]["ports"]]
        right = asked.num_right
        wait_for("answers by certificates", lambda: asked.num_right >= right + 5, timeout_s=60)
    assert_all_answered(asked, least=5)


def _leads_to_gateway(deployed: Deployed) -> bool:
    selector = deployed.target.read("services", deployed.name, deployed.namespace)["spec"]["selector"]
    return bool(selector.get("app.kubernetes.io/component") == "gateway")


@pytest.mark.long
def test_five_minutes_of_killed_ranks_and_deleted_pods_cost_no_client_anything(
    pair: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    pair.patch(gateway={"maxContinuations": 3})
    pair.scale(3)
    pair.wait_settled("3/3")
    chance, ends_at = random.Random(12), time.monotonic() + 300
    with asking(pair, MANY) as asked:
        while time.monotonic() < ends_at:
            wait_for("the time of the next blow", _after(20), timeout_s=30)
            pod = chance.choice(["pair-g0-0", "pair-g1-0", "pair-g2-0"])
            blow = chance.choice([_kill_rank, _delete_pod])
            blow(pair, pod)
    line = {"bench": "gateway_chaos", "metric": "failed_requests", "ours": len(asked.failures), "goal": 0}
    with capsys.disabled():
        print(f"\n{json.dumps(line | {'met': not asked.failures, 'answered_right': asked.num_right})}")
    assert_all_answered(asked)
    pair.patch(gateway={"maxContinuations": None})
    pair.scale(2)
    pair.wait_settled("2/2")


@pytest.mark.long
def test_without_continuation_every_failure_is_an_error_of_the_api_within_five_seconds(
    pair: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    pair.patch(gateway={"maxContinuations": 0})
    wait_for("the gateway with it", lambda: pair.condition("GatewayReady")["status"] == "True", timeout_s=60)
    blows, pods = [], ("pair-g0-0", "pair-g1-0")
    with asking(pair, MANY) as asked:
        for count in range(6):
            right = asked.num_right
            wait_for("answers before the next blow", lambda least=right: asked.num_right >= least + MANY, timeout_s=120)
            blows.append(time.monotonic())
            # A killed rank cuts nothing: its server keeps the requests and runs them again.
            pair.target.kubectl("delete", "pod", pods[count % 2], "-n", pair.namespace, "--grace-period=0", "--force")
            pair.wait_settled("2/2")
    late = [max(0.0, min(at - blow for blow in blows if blow <= at)) for at in asked.failed_at]
    line = {
        "bench": "gateway_chaos",
        "metric": "seconds_to_an_error_without_continuation",
        "ours": max(late, default=0),
    }
    with capsys.disabled():
        print(f"\n{json.dumps(line | {'goal': 5, 'met': max(late, default=0) <= 5, 'failures': len(late)})}")
    assert asked.failures, "six pods that were gone at once cut no stream: nothing was shown"
    assert {failure.split(":")[0] for failure in asked.failures} <= {"APIError", "InternalServerError"}
    assert max(late) <= 5
    pair.patch(gateway={"maxContinuations": None})


def _after(seconds: float) -> Callable[[], bool]:
    at = time.monotonic() + seconds
    return lambda: time.monotonic() >= at


def _kill_rank(deployed: Deployed, pod: str) -> None:
    wait_for(f"a rank of {pod} killed", lambda: deployed.signal_rank(pod, 0, 9) or True, timeout_s=60)


def _delete_pod(deployed: Deployed, pod: str) -> None:
    deployed.target.kubectl("delete", "pod", pod, "-n", deployed.namespace, "--wait=false")


def _all_others(deployed: Deployed, before: set[str]) -> bool:
    now = {pod["metadata"]["uid"] for pod in deployed.pods("gateway")}
    return len(now) == len(before) and not now & before


def _notes_of_keys(deployed: Deployed) -> dict[str, str | None]:
    """Return when each pod's kubelet was last told to look at the keys, by pod."""
    found = [pod["metadata"] for pod in deployed.pods("gateway")]
    return {metadata["name"]: metadata.get("annotations", {}).get(names.KEYS_ANNOTATION) for metadata in found}


def _num_keys(deployed: Deployed) -> list[int]:
    return [deployed.state(pod["metadata"]["name"])["keys"] for pod in deployed.pods("gateway")]


def _is_refused(deployed: Deployed, key: str) -> bool:
    try:
        replace(deployed, key=key).answer()
    except openai.AuthenticationError:
        return True
    return False
