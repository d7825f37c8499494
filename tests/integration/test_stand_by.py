"""The process that stands by for the server hangs: it is found, and costs no outage of minutes."""

from collections.abc import Iterator

import psutil
import pytest

from integration.pods import Group, eventually, running_group

HEARTBEAT_LIMIT_S = 2.0


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with running_group(
        tmp_path_factory.mktemp("group"),
        rank_target="integration.fake_ranks:rest",
        server_target="integration.fake_server:run_server",
        heartbeat_limit_s=HEARTBEAT_LIMIT_S,
    ) as group:
        yield group


def stand_by(group: Group) -> psutil.Process:
    """Wait until the supervisor knows that a process stands by, and return that."""
    group.serving()

    def look() -> list[psutil.Process]:
        known = group.leader.log.read_text()
        standing = [each for each in group.leader.descendants() if name_of(each) == "glm-stand-by"]
        return [each for each in standing if f"process {each.pid} stands by" in known]

    return eventually(look)[0]


def name_of(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running()


def test_one_that_hangs_is_replaced_before_its_turn_comes(group: Group) -> None:
    hung, server = stand_by(group), group.leader.child("server")
    hung.suspend()
    eventually(lambda: is_gone(hung))
    assert stand_by(group) != hung
    assert group.leader.child("server") == server


def test_one_that_hangs_as_its_turn_comes_is_killed_as_a_server_that_hangs(group: Group) -> None:
    hung, server = stand_by(group), group.leader.child("server")
    before = group.serving()
    hung.suspend()
    server.kill()
    eventually(lambda: is_gone(server) and is_gone(hung))
    eventually(lambda: group.leader.get("/readyz").status_code == 200)
    assert group.serving()["generation"] == before["generation"]
