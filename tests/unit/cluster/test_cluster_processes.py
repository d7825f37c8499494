import json
import os
import subprocess
from pathlib import Path

import pytest

from glm_cluster import network
from glm_cluster.addresses import NETNS
from glm_cluster.cleanup import is_shim, kill_inhabitants
from glm_cluster.processes import Processes, parse_stat, stat_of
from glm_cluster.waiting import GaveUp


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    (tmp_path / "pids").mkdir()
    (tmp_path / "logs").mkdir()
    return Processes(tmp_path / "pids", tmp_path / "logs")


def note(processes: Processes, name: str, pid: int, start_ticks: int) -> None:
    (processes.pids / f"{name}.json").write_text(json.dumps({"pid": pid, "start_ticks": start_ticks}))


def test_a_process_name_may_hold_spaces_and_parentheses() -> None:
    fields = ["S", *(str(n) for n in range(4, 60))]
    stat = parse_stat("42 (a) R (b) " + " ".join(fields))
    assert stat.state == "S"
    assert stat.start_ticks == 22  # field 22 of proc(5), and the numbers here are the fields' own


def test_a_running_program_is_found_by_its_pid_file(processes: Processes) -> None:
    me = stat_of(os.getpid())
    assert me is not None
    note(processes, "etcd", os.getpid(), me.start_ticks)
    assert processes.pid("etcd") == os.getpid()


def test_a_pid_that_somebody_else_has_now_is_not_ours(processes: Processes) -> None:
    me = stat_of(os.getpid())
    assert me is not None
    note(processes, "etcd", os.getpid(), me.start_ticks - 1)
    assert processes.pid("etcd") is None
    processes.stop("etcd")  # and we are still here to see that its pid file is gone
    assert processes.names() == []


def test_a_half_written_pid_file_counts_as_no_process(processes: Processes) -> None:
    (processes.pids / "etcd.json").write_text('{"pid": 1')
    assert processes.pid("etcd") is None


def test_what_lives_in_the_namespace_is_killed_without_a_pid_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NETNS).touch()
    monkeypatch.setattr(network, "NETNS_FOLDER", tmp_path)
    with subprocess.Popen(["sleep", "600"]) as child:
        program = tmp_path / "ip"
        program.write_text(f'#!/bin/sh\n[ "$*" = "netns pids {NETNS}" ] && echo {child.pid}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        kill_inhabitants()
        assert stat_of(child.pid) is None


def test_without_a_namespace_nobody_lives_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "NETNS_FOLDER", tmp_path)
    monkeypatch.setenv("PATH", "")
    kill_inhabitants()


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_stop_ends_a_program_even_when_it_ignores_sigterm(processes: Processes, trap: str) -> None:
    command = ["sh", "-c", f"{trap}echo ready; while :; do sleep 1; done"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"  # from here on it is trapped
        stat = stat_of(child.pid)
        assert stat is not None
        note(processes, "etcd", child.pid, stat.start_ticks)
        processes.stop("etcd", grace_s=0.2)
        assert stat_of(child.pid) is None


def test_a_program_that_has_ended_is_reported_with_the_end_of_its_log(processes: Processes) -> None:
    processes.log("etcd").write_text("starting\nport 2379 is in use\n")
    with pytest.raises(GaveUp, match="port 2379 is in use"):
        processes.require("etcd")


def test_only_shims_that_answer_to_our_containerd_are_ours() -> None:
    socket = Path("/state/containerd/containerd.sock")
    shim = ["/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-address", str(socket), ""]
    assert is_shim(shim, socket)
    assert not is_shim([*shim[:4], "/run/containerd/containerd.sock", ""], socket)
    assert not is_shim(["/usr/bin/containerd", "-address", str(socket)], socket)
    assert not is_shim([], socket)
