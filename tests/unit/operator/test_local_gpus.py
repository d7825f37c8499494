"""Which CUDA devices local pods get."""

import pytest

from glm_operator.local.errors import LocalError
from glm_operator.local.gpus import assign_gpus
from glm_operator.local.pods import LocalPod


def a_pod(name: str, num_gpus: int) -> LocalPod:
    return LocalPod(name, "g0", 0, "127.64.0.1", ("serve",), {}, num_gpus, 600.0)


def test_pods_get_devices_in_order_and_never_share_one() -> None:
    assert assign_gpus([a_pod("a", 2), a_pod("b", 1)], 4, taken=[]) == {"a": [0, 1], "b": [2]}


def test_devices_of_other_deployments_are_left_alone() -> None:
    assert assign_gpus([a_pod("a", 2)], 4, taken=[0, 2]) == {"a": [1, 3]}


def test_too_few_devices_are_refused_with_both_numbers() -> None:
    with pytest.raises(LocalError, match=r"needs 3 GPUs, this machine has 4, 2 of them used by other deployments"):
        assign_gpus([a_pod("a", 3)], 4, taken=[0, 1])


def test_pods_on_cpu_get_none() -> None:
    assert assign_gpus([a_pod("a", 0)], 0, taken=[]) == {}
