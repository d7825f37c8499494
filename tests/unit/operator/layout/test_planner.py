"""From a spec to a layout, or to a refusal that says what would fit."""

from typing import Any

import pytest

from glm_operator.layout import Layout, Refusal, nearest, plan
from unit.operator.operator_builders import a_deployment, a_layout

CUDA = {"device": "cuda", "gpu": {"perNode": 8}}
AIR = {"name": "GLM-4.5-Air", "source": "pvc://weights/air/bf16"}
CUSTOM = {"name": "custom", "source": "file:///opt/model"}


def layout(**spec: Any) -> Layout:
    return a_layout(a_deployment(**spec))


def refusal(**spec: Any) -> str:
    result = plan(a_deployment(**spec))
    assert isinstance(result, Refusal)
    return result.message


def test_ranks_share_one_pod_where_they_fit() -> None:
    result = layout(parallelism={"expert": 2})
    assert (result.ranks_per_pod, result.pods_per_group, result.ranks, result.gpus_per_group) == (2, 1, 2, 0)


def test_a_rank_takes_a_gpu_and_a_pod_at_most_a_node() -> None:
    result = layout(model=AIR, hardware=CUDA, parallelism={"expert": 16, "tensor": 8})
    assert (result.ranks_per_pod, result.pods_per_group, result.gpus_per_pod, result.gpus_per_group) == (8, 2, 8, 16)


def test_pods_are_filled_evenly() -> None:
    hardware = {"device": "cuda", "gpu": {"perNode": 6}}
    assert layout(model=AIR, hardware=hardware, parallelism={"expert": 8}).ranks_per_pod == 4


def test_ranks_per_pod_can_be_said() -> None:
    result = layout(hardware={"device": "cpu", "ranksPerPod": 1}, parallelism={"expert": 2})
    assert (result.ranks_per_pod, result.pods_per_group) == (1, 2)


def test_memory_is_exact_where_the_shape_is_known() -> None:
    memory = layout(model=AIR, hardware=CUDA, parallelism={"expert": 8, "tensor": 8}).memory
    assert memory is not None
    # 7.20 billion parameters outside the experts, of which attention is an eighth, and 99.66 / 8 of experts, in bf16
    assert memory.weight_bytes_per_rank == pytest.approx(30.5e9, rel=0.01)
    assert memory.kv_bytes_per_token_per_rank == 23_552


@pytest.mark.parametrize(
    ("execution", "weights", "kv"), [({"dtype": "Float32"}, 2, 2), ({"kvDtype": "Float32"}, 1, 2), ({}, 1, 1)]
)
def test_memory_follows_the_types_that_are_asked_for(execution: dict[str, str], weights: int, kv: int) -> None:
    of = {"model": AIR, "hardware": CUDA, "parallelism": {"expert": 8, "tensor": 8}}
    usual, asked = layout(**of).memory, layout(**of, engine={"execution": execution}).memory
    assert usual is not None
    assert asked is not None
    assert asked.weight_bytes_per_rank == weights * usual.weight_bytes_per_rank
    assert asked.kv_bytes_per_token_per_rank == kv * usual.kv_bytes_per_token_per_rank


def test_a_custom_model_has_no_shape_here_and_any_degrees() -> None:
    result = layout(model=CUSTOM, parallelism={"expert": 3, "tensor": 3})
    assert (result.memory, result.expert) == (None, 3)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({"name": "glm-nano", "source": "builtin://glm-nano"}, ("builtin://glm-nano", None)),
        (CUSTOM, ("/opt/model", None)),
        (AIR, ("/models/air/bf16", "weights")),
        ({"name": "custom", "source": "pvc://weights"}, ("/models", "weights")),
    ],
)
def test_the_worker_is_told_a_folder_of_its_pod(model: dict[str, str], found: tuple[str, str | None]) -> None:
    parallelism = {"expert": 1}
    result = layout(model=model, parallelism=parallelism)
    assert (result.model, result.claim) == found


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"parallelism": {"expert": 3}},
            "parallelism.expert 3 does not divide the 8 routed experts of glm-nano; allowed are 1, 2, 4, 8, nearest: 4",
        ),
        (
            {"parallelism": {"expert": 8, "tensor": 8}},
            "tensor 8 does not divide the 4 heads and 4 KV heads of glm-nano",
        ),
        (
            {"parallelism": {"expert": 2, "tensor": 4}},
            "tensor 4 does not divide parallelism.expert 2; allowed are 1, 2",
        ),
        (
            {"hardware": {"device": "cpu", "ranksPerPod": 3}, "parallelism": {"expert": 4}},
            "ranksPerPod 3 does not divide the 4 ranks of a group; allowed are 1, 2, 4, nearest: 4",
        ),
        (
            {"model": AIR, "hardware": {**CUDA, "ranksPerPod": 16}, "parallelism": {"expert": 16}},
            "ranksPerPod 16 is more than the 8 GPUs of a node; allowed are 1, 2, 4, 8, nearest: 8",
        ),
        ({"engine": {"limits": {"maxModelLen": 4096}}}, "maxModelLen 4096 is more than the 2048 tokens of glm-nano"),
        ({"engine": {"limits": {"kvCache": 0}}}, "kvCache 0 holds no token"),
        (
            {"hardware": {"device": "cpu", "resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}},
            "requests cpu 2 is more than its limit 1500m; nearest: 1500m",
        ),
        (
            {"hardware": {"device": "cpu", "resources": {"limits": {"memory": "1Gi"}}}},
            "limits memory 1Gi leaves no room beside hardware.sharedMemory 1Gi",
        ),
        ({"hardware": {"device": "cpu", "sharedMemory": "0"}}, "sharedMemory 0 is no /dev/shm"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(spec: dict[str, Any], said: str) -> None:
    assert said in refusal(**spec)


@pytest.mark.parametrize(("value", "result"), [(3, 4), (5, 4), (7, 8), (100, 8), (0, 1)])
def test_nearest_is_near_and_prefers_more(value: int, result: int) -> None:
    assert nearest(value, [1, 2, 4, 8]) == result


def test_a_pod_is_given_no_more_ranks_than_a_spec_may_ask_for() -> None:
    result = layout(model=AIR, hardware={"device": "cpu"}, parallelism={"tensor": 8, "expert": 128})
    assert (result.ranks_per_pod, result.pods_per_group) == (64, 2)
