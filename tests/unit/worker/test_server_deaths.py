"""How long the next server waits after one that ended."""

from glm_worker.supervisor.evidence.causes import Cause
from glm_worker.supervisor.evidence.server_deaths import STEADY_S, ServerDeaths

DIED = Cause(rank=None, pod=0, reason="server_died", message="the server (process 7) exited with code 1")


def test_a_server_that_had_answered_is_replaced_at_once_however_often() -> None:
    deaths = ServerDeaths(1.0, 60.0)
    for _ in range(5):
        deaths.note(DIED, listened_s=0.5, has_answered=True)
    assert (deaths.number, deaths.wait_s, deaths.last) == (5, 0.0, DIED)


def test_a_server_that_had_listened_for_long_is_replaced_at_once() -> None:
    deaths = ServerDeaths(1.0, 60.0)
    deaths.note(DIED, listened_s=STEADY_S, has_answered=False)
    assert deaths.wait_s == 0.0


def test_servers_that_never_work_wait_longer_and_longer_until_one_does() -> None:
    deaths = ServerDeaths(1.0, 5.0)
    waits = []
    for listened_s in (None, 0.1, 2.0, None):
        deaths.note(DIED, listened_s=listened_s, has_answered=False)
        waits.append(deaths.wait_s)
    assert waits == [1.0, 2.0, 4.0, 5.0]
    deaths.note(DIED, listened_s=1.0, has_answered=True)
    assert (deaths.wait_s, deaths.in_a_row, deaths.number) == (0.0, 0, 5)
