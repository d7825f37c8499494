"""Which CUDA devices local pods get."""

from pathlib import Path

import pytest

from glm_operator.local import processes
from glm_operator.local.errors import LocalError
from glm_operator.local.gpus import assign_gpus, listed_devices
from glm_operator.local.pods import LocalPod

FOUR = ["0", "1", "2", "3"]
UUID = "GPU-8f6bb8c4-5b0e-4a6f-9d3c-0a1b2c3d4e5f"


def a_pod(name: str, num_gpus: int) -> LocalPod:
    return LocalPod(name, "g0", 0, "127.64.0.1", ("serve",), {}, num_gpus, 600.0)


def test_pods_get_devices_in_order_and_never_share_one() -> None:
    assert assign_gpus([a_pod("a", 2), a_pod("b", 1)], FOUR, taken=[], held={}) == {"a": ["0", "1"], "b": ["2"]}


def test_pods_get_only_devices_that_may_be_used_here_spelled_as_they_are_listed() -> None:
    assert assign_gpus([a_pod("a", 1), a_pod("b", 1)], ["5", UUID], [], {}) == {"a": ["5"], "b": [UUID]}


def test_devices_of_other_deployments_are_left_alone() -> None:
    assert assign_gpus([a_pod("a", 2)], FOUR, taken=["0", "2"], held={}) == {"a": ["1", "3"]}


def test_a_pod_keeps_the_devices_it_has_had() -> None:
    held = {"a": ["2", "3"]}
    assert assign_gpus([a_pod("b", 1), a_pod("a", 2)], FOUR, taken=[], held=held) == {"b": ["0"], "a": ["2", "3"]}


def test_a_pod_that_asks_for_more_or_fewer_devices_than_it_has_had_gets_others() -> None:
    assert assign_gpus([a_pod("a", 1)], FOUR, taken=[], held={"a": ["2", "3"]}) == {"a": ["0"]}


def test_the_devices_of_a_pod_that_goes_are_free() -> None:
    assert assign_gpus([a_pod("a", 2)], ["0", "1"], taken=[], held={"gone": ["0", "1"]}) == {"a": ["0", "1"]}


def test_too_few_devices_are_refused_with_both_numbers() -> None:
    with pytest.raises(LocalError, match=r"needs 3 GPUs, and there are 4 here .*, 2 of them used by other deployments"):
        assign_gpus([a_pod("a", 3)], FOUR, taken=["0", "1"], held={})


def test_pods_on_cpu_get_none() -> None:
    assert assign_gpus([a_pod("a", 0)], [], taken=[], held={}) == {}


@pytest.mark.parametrize(
    ("variable", "devices"),
    [("2, 3", ["2", "3"]), (f"{UUID},MIG-1", [UUID, "MIG-1"]), ("", []), ("-1", []), ("1,-1,2", ["1"]), ("none", [])],
)
def test_the_variable_is_read_as_cuda_reads_it(variable: str, devices: list[str]) -> None:
    assert listed_devices(variable) == devices


@pytest.mark.parametrize(("variable", "devices"), [("0,0", ["0"]), ("1,0,1", ["1", "0"]), (f"{UUID}, {UUID}", [UUID])])
def test_a_device_that_the_variable_names_twice_is_one_device(variable: str, devices: list[str]) -> None:
    assert listed_devices(variable) == devices


def test_without_the_variable_every_device_of_the_machine_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf 'GPU 0: A (UUID: {UUID})\\nGPU 1: A (UUID: {UUID})\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert processes.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert processes.visible_gpus() == ["1"]
