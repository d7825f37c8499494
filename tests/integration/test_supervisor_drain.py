"""The supervisor when it is told to stop, with real processes and fake ranks: what is drained, what waits for whom."""

import os
import signal
import time
from pathlib import Path

import pytest

from integration.pods import LIMIT_S, eventually, running_group

COMPUTE = "integration.fake_ranks:compute"
SERVER = "integration.fake_server:run_server"
REQUEST_IN_FLIGHT = "integration.fake_server:drained_once_answered"


def test_sigterm_drains_and_exits_with_0(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER) as group:
        group.serving()
        assert group.leader.stop() == 0
        assert group.pods[1].stop() == 0


def test_a_ctrl_c_that_reaches_every_process_drains_and_exits_with_0(tmp_path: Path) -> None:
    with running_group(tmp_path, ranks_per_pod=2, rank_target=COMPUTE, server_target=SERVER) as group:
        group.serving()
        os.killpg(group.leader.process.pid, signal.SIGINT)
        assert group.leader.process.wait(LIMIT_S) == 0
        assert "is drained" in group.leader.log.read_text()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    target = "integration.fake_server:never_drained"
    with running_group(tmp_path, rank_target=COMPUTE, server_target=target) as group:
        group.serving()
        group.leader.process.send_signal(signal.SIGTERM)
        eventually(lambda: group.leader.group()["state"] == "draining")
        assert group.leader.get("/readyz").status_code == 503
        assert group.rank(0).is_running()
        group.leader.process.send_signal(signal.SIGTERM)
        assert group.leader.process.wait(LIMIT_S) == 1


def test_a_drain_that_does_not_end_is_ended_by_its_deadline(tmp_path: Path) -> None:
    target = "integration.fake_server:never_drained"
    with running_group(tmp_path, rank_target=COMPUTE, server_target=target, drain_deadline_s=0.5) as group:
        group.serving()
        assert group.leader.stop() == 0
        assert "did not drain" in group.leader.log.read_text()


def test_sigterm_before_anything_served_exits_at_once(tmp_path: Path) -> None:
    target = "integration.fake_ranks:load_for_ever"
    with running_group(tmp_path, rank_target=target, server_target=SERVER, drain_accept_s=3600) as group:
        eventually(lambda: group.leader.group().get("generation"))
        began = time.monotonic()
        assert group.leader.stop() == 0
        assert time.monotonic() - began < 60  # far below drain_accept_s: no endpoint ever pointed here
        assert "told to stop; draining" in group.leader.log.read_text()


def test_sigterm_before_anything_served_finishes_the_requests_that_are_held(tmp_path: Path) -> None:
    target = "integration.fake_ranks:load_for_ever"
    with running_group(tmp_path, rank_target=target, server_target=REQUEST_IN_FLIGHT) as group:
        eventually(lambda: group.leader.group().get("generation"))
        server = group.leader.child("server")
        group.leader.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining" in group.leader.log.read_text() or not server.is_running())
        assert server.is_running()
        (group.run_dir / "answered").touch()
        assert group.leader.process.wait(LIMIT_S) == 0
        assert "the server is drained" in group.leader.log.read_text()


def test_a_follower_that_must_go_waits_for_the_drain_and_the_group_serves_again_when_it_is_back(tmp_path: Path) -> None:
    """The pod of the leader is not told to stop: that it drains only its readiness probe sees, so it accepts longer."""
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER, readiness_lag_s=1) as group:
        before = group.serving()["generation"]
        server = group.leader.child("server").pid
        follower = group.pods[1]
        assert follower.stop() == 0
        cause = group.last_end(before)
        assert (cause["pod"], cause["reason"], cause["message"]) == (1, "peer_lost", "pod 1 was told to stop")
        assert "accepting for 1.0 s more" in group.leader.log.read_text()
        eventually(lambda: group.leader.group()["state"] == "waiting_for_peers")
        follower.start()
        after = group.serving(after=before)
        assert (after["deaths_while_serving"], after["consecutive_start_failures"]) == (0, 0)
        assert group.leader.child("server").pid != server  # the drained one takes no requests any more


def test_a_follower_that_saw_its_leader_restart_still_waits_for_the_drain(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=REQUEST_IN_FLIGHT) as group:
        first = group.serving()["generation"]
        group.leader.process.kill()
        group.leader.process.wait(LIMIT_S)
        group.leader.start()
        before = group.serving(after=first)["generation"]
        follower = group.pods[1]
        follower.process.send_signal(signal.SIGTERM)
        eventually(lambda: group.leader.group()["state"] != "serving")
        assert (group.leader.group()["state"], group.leader.group()["generation"]) == ("draining", before)
        (group.run_dir / "answered").touch()
        assert follower.process.wait(LIMIT_S) == 0
        assert group.last_end(before)["message"] == "pod 1 was told to stop"
        assert "was killed by signal" not in follower.log.read_text()  # what a pod that stops kills itself is no news


@pytest.mark.parametrize("returns", ["after the drain", "during the drain"])
def test_a_group_serves_again_after_a_pod_that_was_told_to_stop_is_killed_meanwhile(
    tmp_path: Path, returns: str
) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=REQUEST_IN_FLIGHT) as group:
        before = group.serving()["generation"]
        server = group.leader.child("server").pid
        follower = group.pods[1]
        follower.process.send_signal(signal.SIGTERM)
        eventually(lambda: group.leader.group()["state"] == "draining")
        follower.process.kill()
        follower.process.wait(LIMIT_S)
        assert group.last_end(before)["reason"] == "peer_lost"
        if returns == "during the drain":  # the request in flight is answered by a generation that ends with the drain
            follower.start()
            eventually(lambda: group.leader.group()["generation"] not in (None, before))
            (group.run_dir / "answered").touch()
        else:
            (group.run_dir / "answered").touch()
            eventually(lambda: group.leader.group()["state"] == "waiting_for_peers")
            follower.start()
        after = group.serving(after=before)
        assert group.leader.get("/readyz").status_code == 200
        assert (after["deaths_while_serving"], after["consecutive_start_failures"]) == (1, 0)
        assert group.leader.child("server").pid != server  # the drained one takes no requests any more
