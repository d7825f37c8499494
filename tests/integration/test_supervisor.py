"""The supervisor with real processes and fake ranks: one pod of two ranks, and two pods of one."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from integration.pods import Group, PodProcess, eventually, loopback_address, running_group

COMPUTE, REST = "integration.fake_ranks:compute", "integration.fake_ranks:rest"
SERVER = "integration.fake_server:run_server"
REQUEST_IN_FLIGHT = "integration.fake_server:drained_once_answered"
HEARTBEAT_LIMIT_S = 2.0


@pytest.fixture(scope="module", params=[(1, 2), (2, 1)], ids=["1 pod x 2 ranks", "2 pods x 1 rank"])
def computing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Two ranks that step without end, in both shapes."""
    yield from _group(request, tmp_path_factory, COMPUTE)


@pytest.fixture(scope="module", params=[(1, 2), (2, 1)], ids=["1 pod x 2 ranks", "2 pods x 1 rank"])
def resting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Two ranks without work, in both shapes."""
    yield from _group(request, tmp_path_factory, REST)


def _group(request: pytest.FixtureRequest, folders: pytest.TempPathFactory, rank_target: str) -> Iterator[Group]:
    pods, ranks = request.param
    with running_group(
        folders.mktemp("group"),
        pods=pods,
        ranks_per_pod=ranks,
        rank_target=rank_target,
        server_target=SERVER,
        heartbeat_limit_s=HEARTBEAT_LIMIT_S,
        peer_limit_s=3.0,
    ) as group:
        yield group


def zombies(pod: PodProcess) -> list[psutil.Process]:
    return [process for process in pod.descendants() if process.status() == psutil.STATUS_ZOMBIE]


def sleepers(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if child.name() == "sleep"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_named_and_the_group_serves_again_at_once(computing: Group, rank: int) -> None:
    before = computing.serving()
    old = {number: computing.rank(number).pid for number in (0, 1)}
    computing.rank(rank).kill()
    after = computing.serving(after=before["generation"])
    cause = computing.last_end(before["generation"])
    assert (cause["rank"], cause["reason"], cause["signal"]) == (rank, "killed", 9)
    assert after["consecutive_start_failures"] == 0
    assert after["deaths_while_serving"] == before["deaths_while_serving"] + 1
    assert {number: computing.rank(number).pid for number in (0, 1)}.items().isdisjoint(old.items())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_stopped_at_work_is_named_and_not_the_one_that_waits_for_it(computing: Group, rank: int) -> None:
    _stopped_rank_is_named(computing, rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_stopped_while_idle_is_named(resting: Group, rank: int) -> None:
    _stopped_rank_is_named(resting, rank)


def _stopped_rank_is_named(group: Group, rank: int) -> None:
    before = group.serving()["generation"]
    stopped_at = time.monotonic()
    group.rank(rank).suspend()
    cause = group.last_end(before)
    found_after_s = time.monotonic() - stopped_at
    assert (cause["rank"], cause["reason"]) == (rank, "hung")
    assert "process state T" in cause["message"]
    assert HEARTBEAT_LIMIT_S - 0.5 < found_after_s < HEARTBEAT_LIMIT_S + 5
    group.serving(after=before)


def test_a_killed_zygote_takes_its_ranks_along_and_comes_back(computing: Group) -> None:
    before = computing.serving()["generation"]
    computing.pods[-1].child("zygote").kill()
    cause = computing.last_end(before)
    assert (cause["rank"], cause["pod"], cause["reason"], cause["signal"]) == (
        None,
        len(computing.pods) - 1,
        "failed",
        9,
    )
    computing.serving(after=before)


def test_a_stopped_zygote_is_found_and_replaced(computing: Group) -> None:
    before = computing.serving()["generation"]
    computing.pods[-1].child("zygote").suspend()
    assert "zygote" in computing.last_end(before)["message"]
    computing.serving(after=before)


def test_a_killed_server_ends_the_generation_and_comes_back(computing: Group) -> None:
    before = computing.serving()["generation"]
    computing.leader.child("server").kill()
    cause = computing.last_end(before)
    assert (cause["rank"], cause["reason"], cause["signal"]) == (None, "server_died", 9)
    computing.serving(after=before)


def test_a_stopped_server_is_found_and_replaced(computing: Group) -> None:
    before = computing.serving()["generation"]
    computing.leader.child("server").suspend()
    assert computing.last_end(before)["reason"] == "server_died"
    computing.serving(after=before)


def test_readiness_holds_through_a_short_new_generation_and_metrics_count_it(computing: Group) -> None:
    before = computing.serving()["generation"]
    computing.rank(1).kill()
    seen = set()

    def again() -> bool:
        seen.add(computing.leader.get("/readyz").status_code)
        return computing.leader.group()["generation"] not in (None, before) and 200 in seen

    eventually(again)
    assert seen == {200}
    computing.serving(after=before)
    text = computing.leader.get("/metrics").text
    assert 'glm_group_state{state="serving"} 1.0' in text
    assert 'glm_generation_ends_total{reason="killed"} 0.0' not in text
    assert 'glm_cold_start_seconds{phase="import"}' in text
    assert "fake_server_metric 1" in text


def test_no_zombie_and_no_file_of_an_old_generation_is_left(computing: Group) -> None:
    current = computing.serving()["generation"]
    for pod in computing.pods:
        eventually(lambda: not zombies(pod))  # noqa: B023 - called before the next turn
    run_dir = computing.leader.log.parent / "run"
    slots = {path.name for path in run_dir.glob("*/slots-*")}
    assert slots == {f"slots-{current}"}


def test_a_frozen_pod_is_lost_by_the_others_and_its_ranks_are_not_called_hung(tmp_path: Path) -> None:
    with running_group(
        tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER, heartbeat_limit_s=2.0, peer_limit_s=1.5
    ) as group:
        before = group.serving()["generation"]
        frozen = [group.pods[1].process, *group.pods[1].descendants()]
        for process in frozen:
            process.suspend()
        cause = group.last_end(before)
        for process in frozen:
            if process.is_running():
                process.resume()
        assert (cause["reason"], cause["pod"]) == ("peer_lost", 1)
        group.serving(after=before)


def test_a_pod_that_is_frozen_as_a_whole_for_long_goes_on_when_it_thaws(tmp_path: Path) -> None:
    with running_group(
        tmp_path, ranks_per_pod=2, rank_target=COMPUTE, server_target=SERVER, heartbeat_limit_s=2.0
    ) as group:
        before = group.serving()["generation"]
        frozen = [group.leader.process, *group.leader.descendants()]
        for process in frozen:
            process.suspend()
        eventually(lambda: all(process.status() == psutil.STATUS_STOPPED for process in frozen))
        thaw_at = time.monotonic() + 4.0
        eventually(lambda: time.monotonic() > thaw_at)  # longer than the heartbeat limit
        for process in reversed(frozen):  # ranks first: the supervisor's first look is at old slots or new ones
            process.resume()
        step_at = time.monotonic() + 3.0
        eventually(lambda: time.monotonic() > step_at)
        assert group.serving()["generation"] == before


def test_a_follower_that_is_killed_comes_back_into_a_new_generation(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER) as group:
        before = group.serving()["generation"]
        follower = group.pods[1]
        ranks = list(follower.ranks().values())
        follower.process.kill()
        follower.process.wait(30)
        eventually(lambda: not any(rank.is_running() for rank in ranks))
        cause = group.last_end(before)
        assert (cause["rank"], cause["pod"], cause["reason"]) == (None, 1, "peer_lost")
        waiting = group.leader.group()
        assert (waiting["state"], waiting["missing_pods"]) == ("waiting_for_peers", [1])
        follower.start()
        assert group.serving(after=before)["consecutive_start_failures"] == 0


def test_a_follower_outlives_its_leader(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER) as group:
        before = group.serving()
        follower = group.pods[1]
        eventually(lambda: follower.get("/readyz").status_code == 200)  # it hears of its leader's state by its ticks
        pid = follower.process.pid
        group.leader.process.kill()
        group.leader.process.wait(30)
        eventually(lambda: follower.group()["generation"] is None and not follower.ranks())
        group.leader.start()
        after = group.serving()
        assert after["incarnation"] != before["incarnation"]
        assert follower.process.pid == pid
        assert follower.process.is_running()


def test_a_pod_of_another_revision_is_refused_and_both_say_so(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER, revision="r1") as group:
        group.serving()
        follower = group.pods[1]
        follower.stop()
        follower.environment["GLM_REVISION"] = "r2"
        follower.start()
        reason = "pod 1 is of revision 'r2', this group's is 'r1'"
        assert eventually(lambda: group.leader.group()["refused_pods"]) == [reason]
        assert eventually(lambda: follower.group().get("refused")) == reason
        assert group.leader.group()["state"] == "waiting_for_peers"
        assert follower.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    ("rank_target", "rank", "message"),
    [
        ("integration.fake_ranks:refuse", None, "no model in builtin://glm-nano"),
        ("integration.fake_ranks:crash_in_load", 1, "ZeroDivisionError: half of nothing"),
    ],
    ids=["wrong model", "crash while loading"],
)
def test_a_worker_that_fails_at_once_backs_off_and_says_why(
    tmp_path: Path, rank_target: str, rank: int | None, message: str
) -> None:
    with running_group(
        tmp_path, ranks_per_pod=2, rank_target=rank_target, server_target=SERVER, backoff_base_s=0.2, backoff_max_s=30
    ) as group:
        seen = eventually(
            lambda: (g := group.leader.group()) and g["consecutive_start_failures"] >= 4 and g["retry_in_s"] and g
        )
        assert seen["state"] == "backing_off"
        assert 0 < seen["retry_in_s"] <= 0.2 * 2 ** (seen["consecutive_start_failures"] - 1)
        assert seen["deaths_while_serving"] == 0
        cause = seen["generations"][-1]["cause"]
        assert (cause["reason"], cause["message"]) == ("failed", message)
        assert rank is None or cause["rank"] == rank
        assert group.leader.get("/readyz").status_code == 503
        assert group.leader.get("/livez").status_code == 200
        assert "starts in a row failed" in group.leader.log.read_text()
        assert group.leader.stop() == 0


def test_a_server_that_fails_at_once_backs_off_and_says_why(tmp_path: Path) -> None:
    target = "integration.fake_server:refuse"
    with running_group(tmp_path, rank_target=REST, server_target=target, backoff_base_s=0.1) as group:
        seen = eventually(lambda: (g := group.leader.group()) and g["consecutive_start_failures"] >= 2 and g)
        cause = seen["generations"][-1]["cause"]
        assert cause["reason"] == "server_died"
        assert cause["message"].endswith("exited with code 78: no tokenizer in builtin://glm-nano")


def test_a_zygote_that_cannot_import_backs_off_and_says_so(tmp_path: Path) -> None:
    with running_group(
        tmp_path, rank_target="integration.nothing:here", server_target=SERVER, backoff_base_s=0.1
    ) as group:
        seen = eventually(lambda: (g := group.leader.group()) and g["consecutive_start_failures"] >= 2 and g)
        assert "zygote" in seen["generations"][-1]["cause"]["message"]
        assert "No module named 'integration.nothing'" in group.leader.log.read_text()


def test_a_start_that_takes_too_long_is_ended_and_shows_how_far_it_came(tmp_path: Path) -> None:
    target = "integration.fake_ranks:load_for_ever"
    with running_group(tmp_path, rank_target=target, server_target=SERVER, start_limit_s=1.0) as group:
        eventually(lambda: group.leader.group().get("load") == {"done_bytes": 50, "total_bytes": 100})
        first = eventually(lambda: (g := group.leader.group()) and g["consecutive_start_failures"] and g)
        assert first["generations"][0]["cause"]["message"] == (
            "the generation did not serve within start_limit_s 1: rank 0 is loading, 50 of 100 bytes read"
        )


def test_sigterm_drains_and_exits_with_0(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER) as group:
        group.serving()
        assert group.leader.stop() == 0
        assert group.pods[1].stop() == 0


def test_a_ctrl_c_that_reaches_every_process_drains_and_exits_with_0(tmp_path: Path) -> None:
    with running_group(tmp_path, ranks_per_pod=2, rank_target=COMPUTE, server_target=SERVER) as group:
        group.serving()
        os.killpg(group.leader.process.pid, signal.SIGINT)
        assert group.leader.process.wait(60) == 0
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
        assert group.leader.process.wait(30) == 1


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


def test_sigterm_before_anything_served_finishes_the_requests_that_are_held(tmp_path: Path) -> None:
    target = "integration.fake_ranks:load_for_ever"
    with running_group(tmp_path, rank_target=target, server_target=REQUEST_IN_FLIGHT) as group:
        eventually(lambda: group.leader.group().get("generation"))
        server = group.leader.child("server")
        group.leader.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining" in group.leader.log.read_text() or not server.is_running())
        assert server.is_running()
        (tmp_path / "answered").touch()
        assert group.leader.process.wait(60) == 0
        assert "the server is drained" in group.leader.log.read_text()


def test_a_follower_that_must_go_waits_for_the_drain_and_the_group_serves_again_when_it_is_back(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=SERVER) as group:
        before = group.serving()["generation"]
        server = group.leader.child("server").pid
        follower = group.pods[1]
        assert follower.stop() == 0
        cause = group.last_end(before)
        assert (cause["pod"], cause["reason"], cause["message"]) == (1, "peer_lost", "pod 1 was told to stop")
        eventually(lambda: group.leader.group()["state"] == "waiting_for_peers")
        follower.start()
        after = group.serving(after=before)
        assert (after["deaths_while_serving"], after["consecutive_start_failures"]) == (0, 0)
        assert group.leader.child("server").pid != server  # the drained one takes no requests any more


def test_a_follower_that_saw_its_leader_restart_still_waits_for_the_drain(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, rank_target=COMPUTE, server_target=REQUEST_IN_FLIGHT) as group:
        first = group.serving()["generation"]
        group.leader.process.kill()
        group.leader.process.wait(60)
        group.leader.start()
        before = group.serving(after=first)["generation"]
        follower = group.pods[1]
        follower.process.send_signal(signal.SIGTERM)
        eventually(lambda: group.leader.group()["state"] != "serving")
        assert (group.leader.group()["state"], group.leader.group()["generation"]) == ("draining", before)
        (tmp_path / "answered").touch()
        assert follower.process.wait(60) == 0
        assert group.last_end(before)["message"] == "pod 1 was told to stop"


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
        follower.process.wait(60)
        assert group.last_end(before)["reason"] == "peer_lost"
        if returns == "during the drain":  # the request in flight is answered by a generation that ends with the drain
            follower.start()
            eventually(lambda: group.leader.group()["generation"] not in (None, before))
            (tmp_path / "answered").touch()
        else:
            (tmp_path / "answered").touch()
            eventually(lambda: group.leader.group()["state"] == "waiting_for_peers")
            follower.start()
        after = group.serving(after=before)
        assert group.leader.get("/readyz").status_code == 200
        assert (after["deaths_while_serving"], after["consecutive_start_failures"]) == (1, 0)
        assert group.leader.child("server").pid != server  # the drained one takes no requests any more


def test_orphans_are_reaped_while_serving_and_killed_at_the_end(tmp_path: Path) -> None:
    target = "integration.fake_ranks:leave_orphans"
    with running_group(tmp_path, rank_target=target, server_target=SERVER) as group:
        before = group.serving()["generation"]
        sleeper = eventually(lambda: sleepers(group.rank(0)))[0]
        group.rank(0).kill()
        group.serving(after=before)
        assert sleeper.parent() == group.leader.process  # adopted
        sleeper.kill()
        eventually(lambda: not sleeper.is_running())  # and reaped
        left = eventually(lambda: sleepers(group.rank(0)))[0]
        assert group.leader.stop() == 0
        eventually(lambda: not left.is_running())


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with running_group(tmp_path, ranks_per_pod=2, rank_target=REST, server_target=SERVER) as group:
        group.serving()
        children = group.leader.descendants()
        assert len(children) == 4
        group.leader.process.kill()
        group.leader.process.wait(30)
        eventually(lambda: not any(child.is_running() for child in children), limit_s=10)


def test_a_port_that_is_taken_is_named_and_ends_the_process(tmp_path: Path) -> None:
    host = loopback_address()
    with (
        socket.create_server((host, 9090)),
        running_group(tmp_path, rank_target=REST, server_target=SERVER, host=host) as group,
    ):
        assert group.leader.process.wait(60) == 78
        assert f"GLM_HOST:GLM_MANAGEMENT_PORT={host}:9090" in group.leader.log.read_text()
