"""The supervisor when a group does not come to serve, with real processes and fake ranks: back-off, limits, reasons."""

import socket
from pathlib import Path

import pytest

from integration.pods import LIMIT_S, eventually, loopback_address, running_group

REST = "integration.fake_ranks:rest"
SERVER = "integration.fake_server:run_server"


@pytest.mark.parametrize(
    ("rank_target", "rank", "message"),
    [
        ("integration.fake_ranks:refuse", None, "no model in builtin://glm-nano"),
        ("integration.fake_ranks:crash_in_load", 1, "ZeroDivisionError: half of nothing"),
        ("integration.fake_ranks:linger_after_the_last_word", 1, "half of nothing"),
    ],
    ids=["wrong model", "crash while loading", "last word of a rank that outlives its peers"],
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


@pytest.mark.long
def test_a_group_that_dies_whenever_it_serves_backs_off_and_is_not_ready(tmp_path: Path) -> None:
    target = "integration.fake_ranks:die_when_told"
    server = "integration.fake_server:never_answered"
    with running_group(tmp_path, rank_target=target, server_target=server, backoff_base_s=0.1) as group:
        group.serving()
        (group.run_dir / "die").touch()
        seen = eventually(lambda: (g := group.leader.group()) and g["consecutive_start_failures"] >= 3 and g)
        assert seen["deaths_while_serving"] >= 1
        causes = [each["cause"]["message"] for each in seen["generations"] if each["cause"]]
        assert causes[-1] == "ZeroDivisionError: half of nothing"
        eventually(lambda: group.leader.get("/readyz").status_code == 503)


def test_starts_that_fail_in_a_row_are_told_to_those_who_wait(tmp_path: Path) -> None:
    target, server = "integration.fake_ranks:refuse", "integration.fake_server:notes_unavailable"
    with running_group(tmp_path, rank_target=target, server_target=server, backoff_base_s=1) as group:
        told = group.run_dir / "unavailable"
        eventually(told.exists)
        assert "starts failed: " in told.read_text()
        assert "no model in builtin://glm-nano" in told.read_text()
        assert group.leader.get("/readyz").status_code == 503


@pytest.mark.long
def test_a_pod_that_stays_away_is_told_to_those_who_wait(tmp_path: Path) -> None:
    server = "integration.fake_server:notes_unavailable"
    with running_group(tmp_path, pods=2, rank_target=REST, server_target=server, missing_limit_s=0.5) as group:
        first = group.serving()
        assert group.pods[1].stop() == 0
        told = group.run_dir / "unavailable"
        eventually(lambda: told.exists() and "pods [1] of the group are missing or cannot start" in told.read_text())
        assert group.leader.get("/readyz").status_code == 503
        group.pods[1].start()
        group.serving(after=first["generation"])
        eventually(lambda: group.leader.get("/readyz").status_code == 200)


@pytest.mark.parametrize(
    ("rank_target", "server_target", "message"),
    [
        ("integration.never_imported:run_rank", SERVER, "it had not imported the engine within import_limit_s 2"),
        (REST, "integration.fake_server:never_listening", "it did not listen within import_limit_s 2"),
    ],
    ids=["zygote", "server"],
)
@pytest.mark.long
def test_a_child_that_hangs_before_it_is_up_is_replaced_and_named(
    tmp_path: Path, rank_target: str, server_target: str, message: str
) -> None:
    with running_group(
        tmp_path, rank_target=rank_target, server_target=server_target, import_limit_s=2, backoff_base_s=0.1
    ) as group:
        eventually(lambda: any(message in str(each["cause"]) for each in group.leader.group().get("generations", [])))


def test_a_port_that_is_taken_is_named_and_ends_the_process(tmp_path: Path) -> None:
    host = loopback_address()
    with (
        socket.create_server((host, 9090)),
        running_group(tmp_path, rank_target=REST, server_target=SERVER, host=host) as group,
    ):
        assert group.leader.process.wait(LIMIT_S) == 78
        assert f"GLM_HOST:GLM_MANAGEMENT_PORT={host}:9090" in group.leader.log.read_text()
