"""What a pod costs while nobody asks it anything but what it carries, as a gateway does all the time."""

import json
import time
from pathlib import Path

import httpx
import psutil
import pytest

from integration.no_tls import NO_TLS
from integration.pods import LIMIT_S, running_group

NUM_LINES = 15  # one a second
MOST_OF_A_CORE = 0.01


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@pytest.mark.long
def test_the_supervisor_of_an_idle_group_takes_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    with running_group(tmp_path, ranks_per_pod=2, rank_target="integration.fake_ranks:rest") as group:
        group.serving()
        supervisor = group.leader.process
        url = f"http://{group.leader.host}:9090/load"
        with httpx.stream("GET", url, timeout=LIMIT_S, verify=NO_TLS) as response:
            lines = response.iter_lines()
            assert json.loads(next(lines))["ready"]
            before_s, began_s = cpu_s(supervisor), time.monotonic()
            for _ in range(NUM_LINES):
                next(lines)
            used_s, passed_s = cpu_s(supervisor) - before_s, time.monotonic() - began_s
        assert passed_s > NUM_LINES / 2, "lines came for a reason: the group was not idle"
        assert used_s / passed_s < MOST_OF_A_CORE
