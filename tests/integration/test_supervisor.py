"""The supervisor when something dies or hangs, with real processes and fake ranks: one pod of two, two pods of one."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from glm_worker.models import resolve
from integration.fake_server import IN_FLIGHT_TOKENS
from integration.metrics_text import series_value
from integration.no_tls import NO_TLS
from integration.pods import LIMIT_S, Group, PodProcess, assert_hung, eventually, running_group
from integration.unreaped import killed_and_unreaped

COMPUTE, REST = "integration.fake_ranks:compute", "integration.fake_ranks:rest"
SERVER = "integration.fake_server:run_server"
HEARTBEAT_LIMIT_S = 2.0
OPERATOR_LIMIT_S = 1.5  # as glm_operator.cluster.workers has it: for an answer of /group


SHAPES = [
    pytest.param((1, 2), id="1 pod x 2 ranks", marks=pytest.mark.long),  # test_worker_process.py has it
    pytest.param((2, 1), id="2 pods x 1 rank"),
]


@pytest.fixture(scope="module", params=SHAPES)
def computing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """Two ranks that step without end, in both shapes."""
    yield from _group(request, tmp_path_factory, COMPUTE)


@pytest.fixture(scope="module", params=SHAPES)
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
    found = []
    for process in pod.descendants():
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


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
def test_a_killed_rank_is_named_even_if_its_peer_is_reaped_first(tmp_path: Path, rank: int) -> None:
    """Rank 2 stands still: nothing but the supervisor's kill ends it, long before it would count as hung."""
    pod = {"ranks_per_pod": 3, "heartbeat_limit_s": 120, "rank_target": COMPUTE, "server_target": SERVER}
    with running_group(tmp_path, **pod) as group:
        before = group.serving()["generation"]
        victim, peer, bystander = group.rank(rank), group.rank(1 - rank), group.rank(2)
        bystander.suspend()
        with killed_and_unreaped(victim):
            eventually(lambda: not peer.is_running())
            eventually(lambda: not bystander.is_running())
        cause = group.last_end(before)
        assert (cause["rank"], cause["reason"], cause["signal"]) == (rank, "killed", 9)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_rank_stopped_at_work_is_named_and_not_the_one_that_waits_for_it(computing: Group, rank: int) -> None:
    _stopped_rank_is_named(computing, rank)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_rank_stopped_while_idle_is_named(resting: Group, rank: int) -> None:
    _stopped_rank_is_named(resting, rank)


def _stopped_rank_is_named(group: Group, rank: int) -> None:
    before = group.serving()["generation"]
    group.rank(rank).suspend()
    cause = group.last_end(before)
    assert_hung(cause, rank, HEARTBEAT_LIMIT_S)
    assert "process state T" in cause["message"]
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


def test_a_killed_server_is_replaced_before_ranks_that_go_on(computing: Group) -> None:
    before = computing.serving()
    ranks = [computing.rank(number).pid for number in (0, 1)]
    server = computing.leader.child("server")
    server.kill()
    after = computing.served_again(server)
    assert after["generation"] == before["generation"]
    assert [computing.rank(number).pid for number in (0, 1)] == ranks
    assert after["server_deaths"] == before["server_deaths"] + 1
    assert f"process {server.pid}) was killed by signal 9" in after["last_server_death"]


def test_a_server_that_hangs_is_killed_and_replaced_before_ranks_that_go_on(computing: Group) -> None:
    before = computing.serving()
    server = computing.leader.child("server")
    server.suspend()
    after = computing.served_again(server)
    assert after["generation"] == before["generation"]
    assert "had not answered its supervisor for 2 s" in after["last_server_death"]
    text = computing.leader.get("/metrics").text
    assert series_value(text, "glm_server_deaths_total") >= 1
    assert series_value(text, "glm_server_recovery_seconds_count") >= 1


def test_servers_that_die_as_they_start_leave_a_loaded_generation_alone(tmp_path: Path) -> None:
    target = "integration.fake_server:once_only"
    with running_group(tmp_path, rank_target=COMPUTE, server_target=target) as group:
        before = group.serving()
        rank = group.rank(0).pid
        group.leader.child("server").kill()
        page = eventually(lambda: _page_after(group, num_deaths=4))
        assert page["generation"] == before["generation"]
        assert group.rank(0).pid == rank
        said = group.leader.get("/readyz")
        assert (said.status_code, "wait for the next server" in said.text) == (503, True)
        (folder,) = group.run_dir.glob("served-*")
        folder.unlink()
        assert group.serving()["generation"] == before["generation"]
        assert group.rank(0).pid == rank


def _page_after(group: Group, num_deaths: int) -> dict[str, Any]:
    page = group.leader.group()
    return page if page["server_deaths"] >= num_deaths and page["state"] == "backing_off" else {}


def test_the_group_page_asks_the_server_for_its_tokens_in_flight(computing: Group) -> None:
    assert computing.serving()["in_flight_tokens"] == IN_FLIGHT_TOKENS
    for follower in computing.pods[1:]:  # they have no server, and nobody asks them
        assert "in_flight_tokens" not in follower.group()


def test_while_the_server_hangs_the_group_page_is_in_time_for_the_operator_with_null(tmp_path: Path) -> None:
    with running_group(tmp_path, rank_target=REST, server_target=SERVER) as group:  # heartbeat_limit_s is 30 s
        generation = group.serving()["generation"]
        server = group.leader.child("server")
        server.suspend()
        eventually(lambda: server.status() == psutil.STATUS_STOPPED)
        page = eventually(lambda: asked_by_the_operator(group))
        assert server.status() == psutil.STATUS_STOPPED
        assert (page["in_flight_tokens"], page["generation"]) == (None, generation)
        server.resume()
        eventually(lambda: group.leader.group()["in_flight_tokens"] == IN_FLIGHT_TOKENS)


def asked_by_the_operator(group: Group) -> dict[str, Any]:
    """Return /group, or nothing when it is not there within the operator's time."""
    try:
        return dict(httpx.get(f"http://{group.leader.host}:9090/group", timeout=OPERATOR_LIMIT_S, verify=NO_TLS).json())
    except httpx.TimeoutException:
        return {}


def test_without_a_server_the_tokens_in_flight_are_null(tmp_path: Path) -> None:
    with running_group(tmp_path, rank_target=REST, server_target="integration.fake_server:never_listening") as group:
        assert eventually(group.leader.group)["in_flight_tokens"] is None


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
    assert series_value(text, 'glm_group_state{state="serving"}') == 1
    assert series_value(text, 'glm_generation_ends_total{reason="killed"}') > 0
    assert series_value(text, 'glm_cold_start_seconds{phase="import"}') >= 0
    assert "fake_server_metric 1" in text


def test_no_zombie_and_no_file_of_an_old_generation_is_left(computing: Group) -> None:
    current = computing.serving()["generation"]
    for pod in computing.pods:
        eventually(lambda: not zombies(pod))  # noqa: B023 - called before the next turn
    slots = {path.name for path in computing.run_dir.glob("*/slots-*")}
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
            with suppress(psutil.NoSuchProcess):  # those that thawed first end what they no longer want
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
        follower.process.wait(LIMIT_S)
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
        group.leader.process.wait(LIMIT_S)
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


@pytest.mark.parametrize("restarted", [0, 1])
def test_a_model_that_came_after_a_pod_keeps_no_other_out(tmp_path: Path, restarted: int) -> None:
    model = tmp_path / "model"
    settings = {"rank_target": REST, "server_target": SERVER, "model": model}
    with running_group(tmp_path, pods=2, **settings) as group:
        before = group.serving()["generation"]
        pod = group.pods[restarted]
        pod.stop()
        shutil.copytree(resolve("builtin://glm-nano"), model)
        pod.start()
        assert group.serving(after=before)["refused_pods"] == []


def test_a_model_that_changes_under_a_group_is_told_until_pod_0_has_it(tmp_path: Path) -> None:
    model = shutil.copytree(resolve("builtin://glm-nano"), tmp_path / "model")
    settings = {"rank_target": REST, "server_target": SERVER, "model": model}
    with running_group(tmp_path, pods=2, **settings) as group:
        before = group.serving()["generation"]
        group.pods[1].stop()
        (model / "config.json").write_text("{}")
        group.pods[1].start()
        (reason,) = eventually(lambda: group.leader.group()["refused_pods"])
        assert reason.startswith("pod 1 has config.json ")
        group.leader.stop()
        group.leader.start()
        assert group.serving(after=before)["refused_pods"] == []


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
        eventually(lambda: len(group.leader.descendants()) == 5)  # zygote, ranks, server, and what stands by for it
        children = group.leader.descendants()
        group.leader.process.kill()
        group.leader.process.wait(LIMIT_S)
        eventually(lambda: not any(child.is_running() for child in children))
