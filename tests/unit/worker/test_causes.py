import itertools
import os
import signal
from collections.abc import Callable

import pytest

from glm_worker.supervisor.evidence.causes import (
    EXIT_CONFIG,
    EXIT_ENGINE,
    Cause,
    Exit,
    Failure,
    cut_short_cause,
    exit_of,
    primary,
    rank_cause,
)

KILLED = rank_cause(1, 1, Exit(signal=9), "")
LOST_ITS_PEER = rank_cause(0, 0, Exit(code=EXIT_ENGINE), "gloo: connection closed by peer")
LOST_IT_TOO = rank_cause(3, 1, Exit(code=EXIT_ENGINE), "gloo: connection reset by peer")
CUT_SHORT = cut_short_cause(2, 1, "ZeroDivisionError: half of nothing")
CRASHED = rank_cause(2, 1, Exit(code=1), "ZeroDivisionError: division by zero")
MISCONFIGURED = rank_cause(1, 0, Exit(code=EXIT_CONFIG), "no such folder")
POD_LOST = Cause(rank=None, pod=1, reason="peer_lost", message="pod 1 is lost")
HUNG = Cause(rank=3, pod=1, reason="hung", message="rank 3 has stood still")
ZYGOTE_DIED = Cause(rank=None, pod=1, reason="failed", signal=9, message="the zygote was killed")
SERVER_DIED = Cause(rank=None, pod=0, reason="server_died", signal=11, message="the server was killed")


def seen_in_order(*causes: Cause) -> list[Failure]:
    return [Failure(cause=cause, at_s=float(at)) for at, cause in enumerate(causes)]


@pytest.mark.parametrize(
    ("first", "dragged_along"),
    [
        (KILLED, LOST_ITS_PEER),
        (KILLED, CRASHED),
        (CRASHED, LOST_ITS_PEER),
        (MISCONFIGURED, LOST_ITS_PEER),
        (POD_LOST, LOST_ITS_PEER),
        (POD_LOST, CRASHED),
        (SERVER_DIED, LOST_ITS_PEER),
        (ZYGOTE_DIED, LOST_ITS_PEER),
        (ZYGOTE_DIED, POD_LOST),
        (HUNG, LOST_ITS_PEER),
        (HUNG, KILLED),
        (KILLED, CUT_SHORT),
        (CRASHED, CUT_SHORT),
        (HUNG, CUT_SHORT),
    ],
)
def test_the_first_cause_is_named_whatever_arrives_first(first: Cause, dragged_along: Cause) -> None:
    for order in itertools.permutations([first, dragged_along]):
        assert primary(seen_in_order(*order)) == first


@pytest.mark.parametrize(
    "failures",
    [*itertools.permutations([Failure(cause=LOST_ITS_PEER, at_s=1.000), Failure(cause=LOST_IT_TOO, at_s=1.001)])],
)
def test_a_killed_rank_is_named_even_if_all_its_peers_are_reaped_before_it(failures: tuple[Failure, ...]) -> None:
    for place in range(len(failures) + 1):
        arrived = [*failures]
        arrived.insert(place, Failure(cause=KILLED, at_s=1.5))
        assert primary(arrived) == KILLED


@pytest.mark.parametrize("first", [LOST_ITS_PEER, CUT_SHORT], ids=["engine failed", "cut short"])
def test_among_ranks_that_may_have_lost_a_peer_the_first_word_is_named_whatever_arrives_first(first: Cause) -> None:
    failures = [
        Failure(cause=first, at_s=1.000),
        Failure(cause=LOST_IT_TOO, at_s=1.001),
        Failure(cause=cut_short_cause(1, 0, "gloo: connection reset by peer"), at_s=1.002),
    ]
    for order in itertools.permutations(failures):
        assert primary(list(order)) == first


def test_among_equals_the_earliest_is_named() -> None:
    other = rank_cause(0, 0, Exit(signal=9), "")
    assert primary([Failure(cause=other, at_s=2.0), Failure(cause=KILLED, at_s=1.0)]) == KILLED


@pytest.mark.parametrize(
    ("ended", "last_word", "reason", "message"),
    [
        (Exit(signal=11), "", "killed", "rank 5 was killed by signal 11 (SIGSEGV)"),
        (Exit(code=3), "", "exited", "rank 5 exited with code 3"),
        (Exit(code=0), "", "exited", "rank 5 exited with code 0"),
        (Exit(code=1), "tensor x is missing", "failed", "tensor x is missing"),
        (Exit(signal=11), "tensor x is missing", "killed", "rank 5 was killed by signal 11 (SIGSEGV)"),
    ],
)
def test_a_rank_is_described_by_its_end_and_its_last_word(
    ended: Exit, last_word: str, reason: str, message: str
) -> None:
    cause = rank_cause(5, 2, ended, last_word)
    assert (cause.reason, cause.message, cause.rank, cause.pod) == (reason, message, 5, 2)
    assert (cause.exit_code, cause.signal) == (ended.code, ended.signal)


def test_a_rank_that_we_killed_after_its_last_word_failed_and_did_not_die_by_a_signal() -> None:
    assert (CUT_SHORT.reason, CUT_SHORT.signal, CUT_SHORT.message) == (
        "failed",
        None,
        "ZeroDivisionError: half of nothing",
    )


def test_a_sigkill_hints_at_the_out_of_memory_killer() -> None:
    assert "out-of-memory" in rank_cause(0, 0, Exit(signal=signal.SIGKILL), "").message


def test_real_time_signals_have_no_name_and_still_a_sentence() -> None:
    assert str(Exit(signal=40)) == "was killed by signal 40 (real-time)"


@pytest.mark.parametrize(
    ("leave", "ended"),
    [(lambda: os._exit(7), Exit(code=7)), (lambda: os.kill(os.getpid(), signal.SIGKILL), Exit(signal=9))],
    ids=["code", "signal"],
)
def test_wait_statuses_are_translated(leave: Callable[[], None], ended: Exit) -> None:
    pid = os.fork()
    if pid == 0:
        leave()
    _, status = os.waitpid(pid, 0)
    assert exit_of(status) == ended
