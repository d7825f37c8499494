"""The type of weights and the number of threads: settings first, then what checkpoint and machine have."""

from pathlib import Path

import pytest
import torch

from glm_worker.engine.numerics import kv_dtype, threads_of_rank, torch_dtype, usable_cpus
from glm_worker.errors import ConfigError
from glm_worker.kernels.cpu import library
from glm_worker.model.config import ModelConfig
from glm_worker.settings import WorkerSettings, read_settings


def some_settings(**changes: object) -> WorkerSettings:
    return WorkerSettings(model="/nowhere", **changes)  # type: ignore[arg-type]


def a_cgroup(folder: Path, limits: dict[str, str], own: str) -> tuple[Path, Path]:
    """Write a tree of cgroups with these cpu.max, and which of them the process is in."""
    for name, limit in limits.items():
        (folder / "cgroup" / name).mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name / "cpu.max").write_text(f"{limit}\n")
    (folder / "membership").write_text(f"0::{own}\n")
    return folder / "cgroup", folder / "membership"


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [("cuda", "auto", torch.bfloat16), ("cpu", "bfloat16", torch.bfloat16), ("cuda", "float32", torch.float32)],
)
def test_a_chosen_type_is_kept_and_that_of_a_gpu_is_bf16(device: str, dtype: str, expected: torch.dtype) -> None:
    config = ModelConfig.model_construct(dtype="float32")
    assert torch_dtype(some_settings(device=device, dtype=dtype), config) == expected


@pytest.mark.parametrize("dtype", ["float32", "float16", ""])
def test_auto_on_a_cpu_keeps_what_a_wider_checkpoint_has(dtype: str) -> None:
    assert torch_dtype(some_settings(), ModelConfig.model_construct(dtype=dtype)) == torch.float32


@pytest.mark.parametrize("isa", library.ISAS)
def test_auto_on_a_cpu_is_bf16_only_where_the_kernels_multiply_it(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    if isa not in library.available_isas():
        pytest.skip(f"this CPU has no {isa}")
    monkeypatch.setenv(library.VARIABLE, isa)
    expected = torch.bfloat16 if isa == "avx512bf16" else torch.float32
    assert torch_dtype(some_settings(), ModelConfig.model_construct(dtype="bfloat16")) == expected


@pytest.mark.parametrize(
    ("cpus", "changes", "threads"),
    [
        (8, {}, 8),
        (8, {"ranks_per_pod": 4}, 2),
        (8, {"ranks_per_pod": 3}, 2),
        (2, {"ranks_per_pod": 4}, 1),
        (8, {"num_pods": 2, "leader_host": "127.0.0.3"}, 4),  # all pods are here
        (8, {"num_pods": 2, "leader_host": "group-0.pods.svc"}, 8),
        (8, {"threads_per_rank": 3, "ranks_per_pod": 4}, 3),
        (8, {"device": "cuda"}, 1),
    ],
)
def test_a_rank_has_its_even_share_of_the_cpus(cpus: int, changes: dict[str, object], threads: int) -> None:
    assert threads_of_rank(some_settings(**changes), cpus) == threads


def test_a_rank_of_torch_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "a-cpu-of-the-future")
    assert threads_of_rank(some_settings(), 8) == 1


@pytest.mark.parametrize(
    ("limits", "own", "cpus"),
    [
        ({"": "max 100000"}, "/", 1000),
        ({"": "350000 100000"}, "/", 3),
        ({"": "max 100000", "pod": "200000 100000", "pod/worker": "max 100000"}, "/pod/worker", 2),
        ({"": "max 100000", "pod": "400000 100000", "pod/worker": "50000 100000"}, "/pod/worker", 1),
        ({"": "200000 100000"}, "/not/seen/from/here", 2),
        ({"": "max 100000", "here": "300000 100000"}, "/not/seen/from/here", 3),
    ],
)
def test_the_tightest_quota_above_a_process_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: dict[str, str], own: str, cpus: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(1000))
    assert usable_cpus(*a_cgroup(tmp_path, limits, own)) == cpus


@pytest.mark.parametrize(
    ("limits", "own", "cpus"),
    [
        ({"": (-1, 100000)}, "/", 1000),
        ({"": (250000, 100000)}, "/", 2),
        ({"": (-1, 100000), "pod": (100000, 50000), "pod/worker": (-1, 100000)}, "/pod/worker", 2),
        ({"": (-1, 100000), "pod": (600000, 100000), "pod/worker": (300000, 100000)}, "/pod/worker", 3),
        ({"": (200000, 100000)}, "/kubepods/pod/worker", 2),  # the mount begins at the container
        ({"": (400000, 100000), "worker": (200000, 100000)}, "/kubepods/pod/worker", 2),  # and here above it
    ],
)
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quotas_of_the_first_cgroups_count_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mount: str, limits: dict[str, tuple[int, int]], own: str, cpus: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(1000))
    for name, (quota_us, period_us) in limits.items():
        folder = tmp_path / mount / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.cfs_quota_us").write_text(f"{quota_us}\n")
        (folder / "cpu.cfs_period_us").write_text(f"{period_us}\n")
    membership = tmp_path / "membership"
    membership.write_text(f"9:memory:{own}\n4:cpu,cpuacct:{own}\n1:name=systemd:{own}\n0::/\n")
    assert usable_cpus(tmp_path, membership) == cpus


def test_a_machine_without_cgroups_has_the_cpus_that_it_may_run_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(5))
    assert usable_cpus(tmp_path / "none", tmp_path / "none either") == 5


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_the_cache_has_the_type_of_the_weights_or_the_one_that_is_asked_for(weights: torch.dtype) -> None:
    assert kv_dtype(some_settings(), weights) == weights
    assert kv_dtype(some_settings(kv_cache_dtype="bfloat16"), weights) == torch.bfloat16
    assert kv_dtype(some_settings(kv_cache_dtype="float32"), weights) == torch.float32


@pytest.mark.parametrize("kernels", ["torch", "triton"])
def test_kernels_of_gpus_are_refused_on_a_cpu(kernels: str) -> None:
    with pytest.raises(ConfigError, match=f"cuda_kernels {kernels} is for device cuda; on cpu use auto"):
        read_settings(model="builtin://glm-nano", cuda_kernels=kernels)
    assert read_settings(model="builtin://glm-nano", device="cuda", cuda_kernels=kernels).cuda_kernels == kernels


def test_kernels_that_no_gpu_has_run_are_not_the_default() -> None:
    assert read_settings(model="builtin://glm-nano", device="cuda").cuda_kernels == "auto"
