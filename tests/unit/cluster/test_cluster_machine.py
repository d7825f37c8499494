"""Mounts, cgroups, waiting and what is told meanwhile."""

from pathlib import Path

import pytest

from glm_cluster.cgroups import hierarchies, pids_in, weigh
from glm_cluster.errors import ClusterError
from glm_cluster.mounts import Mount, mounts_below, parse_mountinfo
from glm_cluster.progress import duration, step
from glm_cluster.waiting import GaveUp, wait_for

MOUNTINFO = r"""
24 30 0:22 / /sys rw,relatime - sysfs sysfs rw
36 24 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
37 24 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
90 30 0:50 / /state/a rw - tmpfs tmpfs rw
91 90 0:51 / /state/a/with\040space rw - overlay overlay rw,lowerdir=/x
92 30 0:52 / /state-of-others rw - tmpfs tmpfs rw
93 30 0:4 net:[4026532] /run/netns rw - nsfs nsfs rw
""".strip()


def test_mounts_are_read_with_their_escapes() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert mounts[1] == Mount(Path("/sys/fs/cgroup/memory"), "cgroup", frozenset({"rw", "memory"}))
    assert mounts[4].point == Path("/state/a/with space")


def test_mounts_are_taken_away_innermost_first_and_only_ours() -> None:
    below = mounts_below(parse_mountinfo(MOUNTINFO), Path("/state"))
    assert below == [Path("/state/a/with space"), Path("/state/a")]


def test_beside_v1_hierarchies_an_empty_v2_one_does_not_count() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    assert hierarchies(mounts) == [Path("/sys/fs/cgroup/memory")]
    assert hierarchies([m for m in mounts if m.kind != "cgroup"]) == [Path("/sys/fs/cgroup/unified")]


@pytest.mark.parametrize(
    ("file", "num_cpus", "weight"),
    [("cpu.shares", 4, "4096"), ("cpu.weight", 4, "400"), ("cpu.weight", 128, "10000")],
)
def test_all_pods_together_weigh_as_much_as_the_cores_of_the_machine_as_far_as_a_cgroup_can(
    tmp_path: Path, file: str, num_cpus: int, weight: str
) -> None:
    (tmp_path / file).write_text("100")
    weigh(tmp_path, num_cpus)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, weight)]


def test_a_hierarchy_without_the_cpu_is_left_alone(tmp_path: Path) -> None:
    weigh(tmp_path, 4)
    assert [*tmp_path.iterdir()] == []


def test_the_processes_of_nested_cgroups_are_found(tmp_path: Path) -> None:
    (tmp_path / "pod/container").mkdir(parents=True)
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "pod/cgroup.procs").write_text("11\n")
    (tmp_path / "pod/container/cgroup.procs").write_text("12\n13\n")
    assert pids_in(tmp_path) == {11, 12, 13}


def test_waiting_ends_with_the_first_true_answer() -> None:
    answers = iter([None, 0, "ready"])
    assert wait_for("readiness", lambda: next(answers), timeout_s=60, interval_s=0) == "ready"


def test_waiting_in_vain_says_for_what_and_why() -> None:
    def refuse() -> None:
        raise ClusterError("connection refused")

    with pytest.raises(ClusterError, match=r"^readiness did not happen within 0 s: connection refused$"):
        wait_for("readiness", refuse, timeout_s=0, interval_s=0)


def test_waiting_stops_at_once_when_it_is_hopeless() -> None:
    def die() -> None:
        raise GaveUp("etcd has ended")

    with pytest.raises(GaveUp):
        wait_for("readiness", die, timeout_s=3600)


@pytest.mark.parametrize(("seconds", "said"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.3, "12 s"), (185.2, "3 min 05 s")])
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_step_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), step("dividing"):
        _ = 1 / 0
    assert "dividing: failed after 0.0 s" in capsys.readouterr().err
