import msgspec
import pytest

from glm_worker.supervisor.evidence.causes import Cause, Exit, rank_cause
from glm_worker.supervisor.evidence.history import LENGTH, STEADY_S, History, rfc3339

KILLED = rank_cause(1, 0, Exit(signal=9), "")
POD_LOST = Cause(rank=None, pod=1, reason="peer_lost", message="pod 1 is lost")


def failed_start(history: History, cause: Cause = KILLED) -> None:
    history.begin(f"a-{history.num_generations + 1}", 0.0)
    history.end(cause, 1.0)


def served(
    history: History,
    *,
    for_s: float = STEADY_S,
    has_answered: bool = False,
    cause: Cause = KILLED,
    planned: bool = False,
) -> None:
    history.begin(f"a-{history.num_generations + 1}", 0.0)
    history.serve(1.0)
    if has_answered:
        history.answer(1.0)
    history.end(cause, 1.0 + for_s, planned=planned)


def test_starts_that_fail_in_a_row_are_counted_until_one_works() -> None:
    history = History()
    failed_start(history)
    failed_start(history)
    assert history.consecutive_start_failures == 2
    history.begin("a-3", 0.0)
    history.serve(1.0)
    assert history.consecutive_start_failures == 2
    history.answer(1.5)
    assert history.consecutive_start_failures == 0


def test_a_generation_that_serves_on_forgets_failed_starts_without_being_asked_anything() -> None:
    history = History()
    failed_start(history)
    history.begin("a-2", 0.0)
    history.serve(1.0)
    history.look(STEADY_S)
    assert history.consecutive_start_failures == 1
    history.look(1.0 + STEADY_S)
    assert history.consecutive_start_failures == 0


def test_a_generation_that_dies_right_after_it_serves_and_answers_nothing_is_a_failed_start() -> None:
    history = History()
    for _ in range(3):
        served(history, for_s=STEADY_S - 0.1)
    assert (history.consecutive_start_failures, history.deaths_while_serving) == (3, 3)


@pytest.mark.parametrize("proof", [{"for_s": STEADY_S}, {"for_s": 0.1, "has_answered": True}], ids=["time", "answer"])
def test_a_generation_that_worked_ends_a_row_of_failed_starts(proof: dict[str, float]) -> None:
    history = History()
    failed_start(history)
    served(history, **proof)
    assert history.consecutive_start_failures == 0


@pytest.mark.parametrize("end", [{"cause": POD_LOST}, {"planned": True}], ids=["pod lost", "pod told to go"])
def test_a_pod_that_goes_right_after_the_start_says_nothing_about_it(end: dict[str, Cause]) -> None:
    history = History()
    failed_start(history)
    served(history, for_s=0.1, **end)
    assert history.consecutive_start_failures == 1


def test_a_death_now_and_then_while_serving_is_no_failed_start() -> None:
    history = History()
    served(history)
    served(history)
    assert (history.deaths_while_serving, history.consecutive_start_failures) == (2, 0)


def test_a_pod_that_is_lost_while_others_start_is_no_failed_start() -> None:
    history = History()
    failed_start(history, POD_LOST)
    assert (history.consecutive_start_failures, history.num_generations) == (0, 1)


def test_a_pod_that_was_told_to_go_is_no_death() -> None:
    history = History()
    served(history, planned=True)
    assert history.deaths_while_serving == 0


def test_the_history_keeps_the_last_generations_and_counts_all() -> None:
    history = History()
    for _ in range(LENGTH + 3):
        served(history)
    assert history.num_generations == LENGTH + 3
    assert [generation.id for generation in history.generations] == [f"a-{n}" for n in range(4, LENGTH + 4)]


def test_a_generation_is_shown_as_the_operator_reads_it() -> None:
    history = History()
    served(history)
    assert msgspec.to_builtins(history.generations[0]) == {
        "id": "a-1",
        "started_at": "1970-01-01T00:00:00.000Z",
        "ready_at": "1970-01-01T00:00:01.000Z",
        "ended_at": "1970-01-01T00:00:11.000Z",
        "cause": {
            "rank": 1,
            "pod": 0,
            "reason": "killed",
            "exit_code": None,
            "signal": 9,
            "message": KILLED.message,
        },
    }


def test_only_one_generation_lives_at_a_time() -> None:
    history = History()
    history.begin("a-1", 0.0)
    with pytest.raises(AssertionError):
        history.begin("a-2", 0.0)


def test_times_are_written_as_kubernetes_does() -> None:
    assert rfc3339(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"
