"""Stories of one who serves a model: apply, chat, scale, edit, repair, delete."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anthropic
import openai
import pytest

from e2e.chats import chats
from e2e.conftest import MODEL_NAMESPACE
from e2e.deployments import Deployed, nano, wait_for
from e2e.kubectl_glm import printed
from e2e.operator_release import Release
from e2e.target import CHECKOUT
from glm_cluster.addresses import GPU_RESOURCE
from glm_cluster.errors import CommandFailed

RECORD, SHARED = "glm-operator.io/accepted-spec=true", "glm-operator.io/deployment=nano"


@pytest.fixture(scope="module")
def two_pods(release: Release, gpus: None) -> Iterator[Deployed]:
    """A second deployment: one group of 2 pods x 1 rank, each with a GPU that the scheduler counts."""
    gpu = {"limits": {GPU_RESOURCE: "1"}}
    deployed = Deployed(release.target, "two-pods", MODEL_NAMESPACE)
    release.target.apply(nano("two-pods", MODEL_NAMESPACE, ranks_per_pod=1, resources=gpu))
    deployed.wait_ready()
    deployed.wait_answers()
    yield deployed
    deployed.delete()


def test_the_example_serves_a_chat_that_thinks_and_answers_right(release: Release) -> None:
    target = release.target
    target.kubectl("apply", "-n", MODEL_NAMESPACE, "-f", CHECKOUT / "examples/nano.yaml")
    deployed = Deployed(target, "nano", MODEL_NAMESPACE)
    deployed.wait_ready(timeout_s=180)
    wait_for("a refusal without a key", lambda: _is_refused(deployed), timeout_s=60)
    deployed = replace(deployed, key=printed(target, "keys", "create", "guest", "-n", MODEL_NAMESPACE))
    began = time.monotonic()
    deployed.wait_answers()
    assert time.monotonic() - began < 30, "keys are brought at once, not when the kubelet looks next"
    thinking, content = deployed.answer("What is 12+30?")
    assert "42" in content
    assert thinking.strip()
    columns = target.kubectl("get", "glmd", "nano", "-n", MODEL_NAMESPACE)
    assert "1/1" in columns
    deployed.delete()
    wait_for("everything of nano gone", lambda: not deployed.owned(), timeout_s=60)


def _is_refused(deployed: Deployed) -> bool:
    with pytest.raises(openai.AuthenticationError, match="the API key is not known here"):
        deployed.answer()
    return True


def test_a_tool_call_is_made_and_its_result_answered(shared: Deployed) -> None:
    weather = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    with shared.client() as client:
        first = client.chat.completions.create(model="glm-nano", messages=messages, tools=[weather])  # type: ignore[list-item]
        call = first.choices[0].message.tool_calls[0]  # type: ignore[index]
        assert call.function.name == "get_weather"  # type: ignore[union-attr]
        assert "Paris" in call.function.arguments  # type: ignore[union-attr]
        result = '{"city": "Paris", "temperature": 18, "condition": "sunny"}'
        messages += [
            first.choices[0].message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": result},
        ]
        second = client.chat.completions.create(model="glm-nano", messages=messages, tools=[weather])  # type: ignore[list-item]
    assert "18" in (second.choices[0].message.content or "")


def test_an_edit_of_reasoning_reaches_running_groups_and_moves_none(shared: Deployed) -> None:
    before = shared.pod_uids()
    shared.patch(reasoning={"default": "Disabled", "visibility": "Hidden"})

    def is_taken() -> bool:
        return shared.condition("PolicyApplied")["status"] == "True"

    wait_for("PolicyApplied", is_taken, timeout_s=60)
    try:
        assert decided(shared) == ("disabled; by=policy", "")
        assert decided(shared, thinking={"type": "enabled"}) == ("enabled; by=request", ""), "and its thought is hidden"
    finally:
        shared.patch(reasoning=None)
    wait_for("the template's mode again", lambda: decided(shared)[0] == "enabled; by=template", timeout_s=60)
    assert decided(shared)[1].strip()
    assert shared.pod_uids() == before


def decided(deployed: Deployed, **extra: Any) -> tuple[str, str]:
    """Return how a chat was answered, as its header says, and the thought that was told."""
    messages: Any = [{"role": "user", "content": "What is 12+30?"}]
    with deployed.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="glm-nano", messages=messages, extra_body=extra)
        message = raw.parse().choices[0].message
        return raw.headers["x-glm-thinking"], getattr(message, "reasoning_content", None) or ""


def test_anthropics_client_and_a_schema_are_answered_through_the_service(shared: Deployed) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    question: Any = [{"role": "user", "content": "What is 12+30?"}]
    with shared.client() as client:
        form: Any = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
        chat = client.chat.completions.create(model="glm-nano", messages=question, response_format=form)
        assert isinstance(json.loads(chat.choices[0].message.content or "")["n"], int)
        url = str(client.base_url).removesuffix("v1/")
        direct = anthropic.DefaultHttpxClient(trust_env=False)
        with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, http_client=direct) as other:
            message = other.messages.create(model="glm-nano", max_tokens=300, messages=question)
            version = direct.get(f"{url}version").json()
            described = direct.get(f"{url}openapi.json").json()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert "42" in message.content[1].text
    assert message.stop_reason == "end_turn"
    assert described["info"]["version"] == version["version"]


def test_a_group_of_two_pods_serves_beside_the_first_deployment(shared: Deployed, two_pods: Deployed) -> None:
    assert two_pods.limits(GPU_RESOURCE) == ["1", "1"]
    assert shared.limits(GPU_RESOURCE) == ["2"]
    two_pods.wait_answers()
    shared.wait_answers()


def test_kubectl_scale_goes_up_and_down(shared: Deployed) -> None:
    target = shared.target
    shared.scale(3)
    shared.wait_settled("3/3", timeout_s=180)
    endpoints = target.items("endpointslices", MODEL_NAMESPACE, "kubernetes.io/service-name=nano-worker")
    assert sum(len(s["endpoints"]) for s in endpoints) == 3, "only rank-0 pods answer"
    selector = target.get("glmd", "nano", "-n", MODEL_NAMESPACE)["status"]["selector"]
    assert len(target.items("pods", MODEL_NAMESPACE, selector)) == 3
    shared.scale(1)
    shared.wait_settled("1/1", timeout_s=120)
    wait_for("one pod left", lambda: len(shared.pods()) == 1, timeout_s=60)
    shared.wait_answers()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_replaced_without_a_new_pod(shared: Deployed, rank: int) -> None:
    _assert_killed_rank_is_replaced(shared, "nano-g0-0", "nano-g0-0", rank=rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_of_a_group_of_two_pods_is_replaced_without_a_new_pod(two_pods: Deployed, rank: int) -> None:
    _assert_killed_rank_is_replaced(two_pods, "two-pods-g0-0", f"two-pods-g0-{rank}", rank=rank)


def _assert_killed_rank_is_replaced(deployed: Deployed, leader: str, pod: str, *, rank: int) -> None:
    before, generation = deployed.pod_uids(), deployed.group(leader)["generation"]
    deployed.signal_rank(pod, rank, signal.SIGKILL)
    deployed.wait_answers()
    assert deployed.pod_uids() == before
    group = deployed.group(leader)
    assert group["generation"] != generation
    assert _cause(group, generation)["rank"] == rank


@pytest.mark.long
def test_a_hung_rank_is_found_and_named(shared: Deployed) -> None:
    _assert_hung_rank_is_named(shared, "nano-g0-0", "nano-g0-0", rank=1)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_hung_rank_of_a_group_of_two_pods_is_found_and_named(two_pods: Deployed, rank: int) -> None:
    _assert_hung_rank_is_named(two_pods, "two-pods-g0-0", f"two-pods-g0-{rank}", rank=rank)


def _assert_hung_rank_is_named(deployed: Deployed, leader: str, pod: str, *, rank: int) -> None:
    """Stop a rank while it and the others compute a chat: the others, which wait for it, are not to blame."""
    generation = deployed.group(leader)["generation"]
    with chats(deployed) as in_flight:
        in_flight.open_on(leader)
        deployed.signal_rank(pod, rank, signal.SIGSTOP)
        wait_for(
            "another generation", lambda: deployed.group(leader)["generation"] not in (generation, None), timeout_s=60
        )
        in_flight.assert_none_is_silent()
    cause = _cause(deployed.group(leader), generation)
    assert (cause["rank"], cause["reason"]) == (rank, "hung")
    deployed.wait_answers()


def test_a_killed_rank_is_told_in_the_status(two_pods: Deployed) -> None:
    before, told = _last_failure(two_pods), {"rank": 0, "pod": "two-pods-g0-0", "reason": "killed"}
    two_pods.signal_rank("two-pods-g0-0", 0, signal.SIGKILL)
    two_pods.wait_answers()
    # No event of the cluster tells of it: the operator would see it when it looks at everything, every half minute.
    two_pods.target.kubectl("annotate", "glmd", "two-pods", "-n", MODEL_NAMESPACE, "looked-at=now")

    def is_told() -> bool:
        failure = _last_failure(two_pods)
        return told.items() <= failure.items() and failure != before  # a story before may have killed the same rank

    wait_for("it in the status", is_told, timeout_s=90)


@pytest.mark.parametrize("pod", [pytest.param("two-pods-g0-0", marks=pytest.mark.long), "two-pods-g0-1"])
def test_a_deleted_pod_finishes_its_chats_comes_back_and_the_group_serves_again(two_pods: Deployed, pod: str) -> None:
    before = two_pods.pod_uids()[pod]
    with chats(two_pods) as in_flight:
        in_flight.open_on("two-pods-g0-0")
        two_pods.target.kubectl("delete", "pod", pod, "-n", MODEL_NAMESPACE, "--wait=false")
        in_flight.wait_in_flight(pod, leader="two-pods-g0-0")
        in_flight.assert_all_right()
    wait_for("another pod", lambda: two_pods.pod_uids().get(pod) not in (None, before), timeout_s=60)
    two_pods.wait_settled("1/1", timeout_s=180)
    two_pods.wait_answers()


def test_a_group_whose_stateful_set_is_deleted_is_replaced_at_another_index(shared: Deployed) -> None:
    shared.target.kubectl("delete", "statefulset/nano-g0", "-n", MODEL_NAMESPACE, "--wait=false")
    wait_for("another group", lambda: "StatefulSet/nano-g1" in shared.owned(), timeout_s=60)
    shared.wait_settled("1/1", timeout_s=180)
    shared.wait_answers()
    _bring_back_the_first_group(shared)


def _bring_back_the_first_group(shared: Deployed) -> None:
    """Leave the group at index 0 behind: a newcomer takes it, and of two that are idle the higher one goes."""
    wait_for("the old pod gone", lambda: [*shared.pod_uids()] == ["nano-g1-0"], timeout_s=60)
    shared.scale(2)
    shared.wait_settled("2/2", timeout_s=180)
    shared.scale(1)
    shared.wait_settled("1/1", timeout_s=180)
    wait_for("the first group alone", lambda: [*shared.pod_uids()] == ["nano-g0-0"], timeout_s=60)


@pytest.mark.parametrize("owned", ["service/nano", "service/nano-ranks", "serviceaccount/nano-worker"])
def test_a_deleted_object_comes_back(shared: Deployed, owned: str) -> None:
    target = shared.target
    before, pods = target.get(owned, "-n", MODEL_NAMESPACE)["metadata"]["uid"], shared.pod_uids()
    target.kubectl("delete", owned, "-n", MODEL_NAMESPACE, "--wait=false")

    def is_another() -> bool:
        try:
            return bool(target.get(owned, "-n", MODEL_NAMESPACE)["metadata"]["uid"] != before)
        except CommandFailed:
            return False

    wait_for(f"{owned} made again", is_another, timeout_s=60)
    assert shared.pod_uids() == pods
    shared.wait_settled("1/1", timeout_s=180)
    shared.wait_answers()


def test_a_deleted_record_of_the_accepted_spec_comes_back(shared: Deployed) -> None:
    def uids() -> dict[str, str]:
        found = shared.target.items("controllerrevisions.apps", MODEL_NAMESPACE, f"{RECORD},{SHARED}")
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in found}

    before = uids()
    shared.target.kubectl("delete", "controllerrevisions.apps", "-n", MODEL_NAMESPACE, "-l", f"{RECORD},{SHARED}")
    wait_for("the record made again", lambda: before.items() - uids().items() and before.keys() & uids(), timeout_s=60)
    shared.wait_settled("1/1", timeout_s=60)


def test_an_image_that_cannot_be_pulled_says_so_and_can_be_taken_back(shared: Deployed) -> None:
    shared.patch(engine={"image": "10.201.0.2:5000/no-such-image:1"})

    def is_told() -> bool:
        ready = shared.condition("Ready")
        return (
            ready["status"] == "False"
            and ready["reason"] == "ImagePullFailed"
            and "no-such-image:1" in ready["message"]
        )

    wait_for("ImagePullFailed in Ready", is_told, timeout_s=120)
    shared.patch(engine={"image": None})
    shared.wait_settled("1/1", timeout_s=180)
    shared.wait_answers()


def test_a_pod_that_fits_no_node_says_so(release: Release) -> None:
    target = release.target
    target.apply(nano("too-big", MODEL_NAMESPACE, resources={"limits": {GPU_RESOURCE: "64"}}))
    deployed = Deployed(target, "too-big", MODEL_NAMESPACE)

    def is_told() -> bool:
        ready = deployed.condition("Ready")
        return ready["reason"] == "Unschedulable" and GPU_RESOURCE in ready["message"]

    wait_for("Unschedulable in Ready", is_told, timeout_s=60)
    deployed.delete()


def test_a_model_that_does_not_load_says_so(release: Release) -> None:
    target = release.target
    broken = nano("no-model", MODEL_NAMESPACE)
    broken["spec"]["model"] = {"name": "custom", "source": "file:///no/such/model"}
    target.apply(broken)
    deployed = Deployed(target, "no-model", MODEL_NAMESPACE)

    def is_told() -> bool:
        ready = deployed.condition("Ready")
        return ready["reason"] == "LoadFailed" and "/no/such/model" in ready["message"]

    wait_for("LoadFailed in Ready", is_told, timeout_s=120)
    deployed.delete()


@pytest.fixture
def on_gpus(release: Release, gpus: None) -> Iterator[Deployed]:
    """A deployment for CUDA devices, on a node that counts some and has none."""
    if release.target.cluster is None:
        pytest.skip("the GPUs of this cluster may be real ones, and this story is about a node without")
    # By default a rank on a GPU asks for a core and 4 GiB of memory, more than the machine of a test may have.
    requests = {"cpu": "100m", "memory": "1Gi"}
    manifest = nano("on-gpus", MODEL_NAMESPACE, device="cuda", gpu={}, resources={"requests": requests})
    del manifest["spec"]["hardware"]["ranksPerPod"]
    release.target.apply(manifest)
    deployed = Deployed(release.target, "on-gpus", MODEL_NAMESPACE)
    yield deployed
    deployed.delete()


def test_ranks_for_cuda_take_a_gpu_each_and_say_when_there_is_none(on_gpus: Deployed) -> None:
    def is_told() -> bool:
        ready = on_gpus.condition("Ready")
        return ready["reason"] == "LoadFailed" and "device cuda" in ready["message"] and "sees 0" in ready["message"]

    wait_for("LoadFailed in Ready", is_told, timeout_s=120)
    assert on_gpus.status()["gpus"] == 2
    assert on_gpus.limits(GPU_RESOURCE) == ["2"]


def test_a_bad_edit_leaves_the_running_group_alone(shared: Deployed) -> None:
    target, before, hardware = shared.target, shared.pod_uids(), shared.spec()["hardware"]
    with pytest.raises(CommandFailed, match="does not divide"):
        shared.patch(parallelism={"tensor": 1, "expert": 5})
    # what CEL cannot see: units of a quantity that make no sense together are the planner's to refuse
    shared.patch(hardware={"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})

    def is_refused() -> bool:
        planned = shared.condition("Planned")
        return planned["status"] == "False" and "memory" in planned["message"]

    wait_for("Planned=False", is_refused, timeout_s=60)
    assert shared.pod_uids() == before
    assert shared.answers_right()
    target.kubectl("delete", "pod", "nano-g0-0", "-n", MODEL_NAMESPACE)  # repair goes on with the accepted spec
    wait_for("the right answer", shared.answers_right, timeout_s=180)
    shared.replace("hardware", hardware)
    shared.wait_settled("1/1", timeout_s=180)


@pytest.mark.long
def test_an_edit_that_only_the_api_server_can_refuse_leaves_the_group_and_its_repair_alone(shared: Deployed) -> None:
    target, before, hardware = shared.target, shared.pod_uids(), shared.spec()["hardware"]
    revision = shared.status()["revision"]
    shared.patch(hardware={"tolerations": [{"operator": "Exists", "value": "x"}]})

    def is_refused() -> bool:
        planned = shared.condition("Planned")
        return planned["reason"] == "ApplyRefused" and "tolerations[0]" in planned["message"]

    wait_for("Planned=False", is_refused, timeout_s=60)
    assert shared.condition("Ready")["reason"] == "EditRefused"
    assert shared.pod_uids() == before
    target.kubectl("delete", "statefulset", "nano-g0", "-n", MODEL_NAMESPACE)
    # not the pod that is still leaving: one of another group, while the spec is still refused
    wait_for("another pod", lambda: [*shared.pod_uids()] == ["nano-g1-0"], timeout_s=60)
    wait_for("the right answer", shared.answers_right, timeout_s=180)
    assert shared.condition("Planned")["reason"] == "ApplyRefused"
    assert shared.status()["revision"] == revision
    shared.replace("hardware", hardware)
    shared.wait_settled("1/1", timeout_s=180)
    _bring_back_the_first_group(shared)


def _cause(group: dict[str, Any], generation: str) -> dict[str, Any]:
    cause: dict[str, Any] = next(each["cause"] for each in group["generations"] if each["id"] == generation)
    return cause


def _last_failure(deployed: Deployed) -> dict[str, Any]:
    failure: dict[str, Any] = deployed.status()["groups"][0].get("lastFailure", {})
    return failure
