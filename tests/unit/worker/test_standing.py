"""How a group stands through generations, and through servers within one."""

from glm_worker.supervisor.evidence.causes import Cause
from glm_worker.supervisor.evidence.history import STEADY_S
from glm_worker.supervisor.group.standing import READY_GRACE_S, Standing

KILLED = Cause(rank=1, pod=0, reason="killed", signal=9, message="rank 1 was killed")


def a_group_that_serves(*, for_s: float = 0.0) -> tuple[Standing, float]:
    """Return one whose first generation has served this long, and now; both clocks show the same."""
    standing = Standing(100.0, 100.0)
    standing.begin("g-1", 101.0)
    standing.serve(105.0, 105.0)
    return standing, 105.0 + for_s


def test_the_first_start_is_measured_once() -> None:
    standing, now = a_group_that_serves(for_s=60.0)
    assert standing.cold_start_s == 5.0
    standing.interrupt(now, now)
    standing.serve(now + 1, now + 1)
    assert standing.cold_start_s == 5.0


def test_a_generation_that_waits_for_a_server_stays_the_one_it_was_and_serves_since_then() -> None:
    standing, now = a_group_that_serves(for_s=60.0)
    standing.interrupt(now, now)
    assert (standing.generation, standing.is_serving, standing.has_loaded) == ("g-1", False, True)
    assert standing.history.starting_since == now
    standing.serve(now + 0.5, now + 0.5)
    assert standing.history.serving_since == now + 0.5
    (generation,) = standing.history.generations
    assert (generation.id, generation.ended_at) == ("g-1", None)
    assert generation.ready_at == "1970-01-01T00:01:45.000Z", "as it was first"
    assert standing.history.deaths_while_serving == 0


def test_what_a_generation_has_shown_counts_also_before_its_next_server() -> None:
    standing, now = a_group_that_serves(for_s=STEADY_S)
    standing.interrupt(now, now)
    standing.serve(now + 1, now + 1)
    standing.interrupt(now + 2, now + 2)
    standing.end(KILLED, now + 2, planned=False)
    assert (standing.history.consecutive_start_failures, standing.history.deaths_while_serving) == (0, 1)
    assert (standing.generation, standing.is_serving, standing.has_loaded) == (None, False, False)


def test_requests_wait_through_a_short_interruption_and_no_longer() -> None:
    standing, now = a_group_that_serves(for_s=STEADY_S)
    standing.interrupt(now, now)
    assert standing.was_serving_at(now + READY_GRACE_S - 0.1)
    assert not standing.was_serving_at(now + READY_GRACE_S)


def test_a_group_that_had_shown_nothing_is_not_ready_when_it_is_interrupted() -> None:
    standing, now = a_group_that_serves(for_s=STEADY_S - 1)
    standing.interrupt(now, now)
    assert not standing.was_serving_at(now)


def test_after_a_release_nothing_is_ready_before_the_next_generation() -> None:
    standing, now = a_group_that_serves(for_s=STEADY_S)
    standing.interrupt(now, now)
    standing.forget_service()
    assert not standing.was_serving_at(now)


def test_an_interruption_of_what_does_not_serve_changes_nothing() -> None:
    standing = Standing(100.0, 100.0)
    standing.begin("g-1", 101.0)
    standing.interrupt(102.0, 102.0)
    assert standing.history.starting_since == 100.0
    assert not standing.was_serving_at(102.0)
