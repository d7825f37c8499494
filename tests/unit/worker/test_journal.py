"""The books of requests: nothing is lost, nothing runs more than twice, nothing ends twice."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.flights.journal import Journal, QueueLimits


def a_journal(*, requests: int = 8, tokens: int = 1000, seqs: int = 0) -> Journal:
    return Journal(QueueLimits(max_waiting_requests=requests, max_waiting_tokens=tokens, max_num_seqs=seqs))


def test_requests_are_held_until_a_generation_serves_and_go_in_order() -> None:
    journal = a_journal()
    for name in "abc":
        journal.admit(name, 1)
    assert journal.due() == []
    journal.serve("g1")
    assert journal.due() == ["a", "b", "c"]
    assert journal.due() == []


@pytest.mark.parametrize("tokens", [0, 1, 4, 100])
@pytest.mark.parametrize("requests", [0, 2])
@pytest.mark.parametrize("seqs", [1, 2, 3])
@pytest.mark.parametrize("num", range(1, 7))
def test_an_order_is_refused_for_good_if_and_only_if_an_idle_server_would_not_take_it(
    num: int, seqs: int, requests: int, tokens: int
) -> None:
    limits = QueueLimits(max_waiting_requests=requests, max_waiting_tokens=tokens, max_num_seqs=seqs)
    journal = Journal(limits)
    journal.serve("g1")
    is_taken = is_allowed = True
    try:
        for number in range(num):
            journal.admit(str(number), 1)
    except Overloaded:
        is_taken = False
    try:
        limits.check_order([1] * num)
    except RequestRefused:
        is_allowed = False
    assert is_allowed == is_taken


def test_requests_of_a_lost_generation_go_on_in_the_next_one_in_order() -> None:
    journal = a_journal()
    journal.serve("g1")
    for name in "ab":
        journal.admit(name, 1)
    journal.due()
    losses = journal.lose("g1")
    assert (losses.held, losses.failed) == (["a", "b"], [])
    journal.serve("g2")
    assert journal.due() == ["a", "b"]


def test_a_request_runs_at_most_twice() -> None:
    journal = a_journal()
    journal.admit("a", 1)
    for generation in ("g1", "g2"):
        journal.serve(generation)
        assert journal.due() == ["a"]
        losses = journal.lose(generation)
    assert (losses.held, losses.failed) == ([], ["a"])


def test_a_generation_that_never_had_a_request_does_not_count() -> None:
    journal = a_journal()
    for generation in ("g1", "g2", "g3"):
        journal.serve(generation)
        assert journal.lose(generation).failed == []
    journal.admit("a", 1)
    journal.serve("g4")
    assert journal.due() == ["a"]


def test_the_end_of_an_old_generation_touches_nothing() -> None:
    journal = a_journal()
    journal.serve("g2")
    journal.admit("a", 1)
    journal.due()
    assert journal.lose("g1").held == []
    assert journal.generation == "g2"


def test_ending_a_request_tells_who_has_it() -> None:
    journal = a_journal()
    journal.admit("held", 1)
    assert journal.end("held") is None
    journal.serve("g1")
    journal.admit("submitted", 1)
    journal.due()
    assert journal.end("submitted") == "g1"


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_full_queue_refuses_with_a_time_to_come_back(limit: int) -> None:
    journal = a_journal(requests=limit)
    for number in range(limit):
        journal.admit(str(number), 1)
    with pytest.raises(Overloaded, match=f"{limit} may") as caught:
        journal.admit("more", 1)
    assert caught.value.retry_after_s >= 1
    assert "more" not in journal


def test_free_places_of_the_engine_do_not_count_as_queue() -> None:
    journal = a_journal(requests=1, seqs=2)
    journal.serve("g1")
    for name in "abc":  # two run, one waits
        journal.admit(name, 1)
        journal.due()
    with pytest.raises(Overloaded):
        journal.admit("d", 1)
    journal.schedule("a")
    with pytest.raises(Overloaded):
        journal.admit("d", 1)
    journal.end("a")
    journal.admit("d", 1)


def test_prompt_tokens_that_wait_are_limited_too() -> None:
    journal = a_journal(tokens=10)
    journal.admit("long", 50)  # alone in the queue: refusing it would refuse it for ever
    with pytest.raises(Overloaded, match="50 prompt tokens"):
        journal.admit("a", 1)
    journal.end("long")
    journal.admit("a", 5)
    journal.admit("b", 5)
    with pytest.raises(Overloaded):
        journal.admit("c", 1)


class Books(RuleBasedStateMachine):
    """Random lives of requests and generations, with what must hold for every single request."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.journal = a_journal(requests=5, tokens=40, seqs=2)
        self.runs: dict[str, int] = {}
        self.ended: set[str] = set()
        self.numbers = iter(range(10**6))

    @rule(target=requests, num_tokens=st.integers(1, 30))
    def admit(self, num_tokens: int):
        name = f"r{next(self.numbers)}"
        try:
            self.journal.admit(name, num_tokens)
        except Overloaded:
            assert name not in self.journal
            return multiple()
        self.runs[name] = 0
        return name

    @precondition(lambda self: self.journal.generation is None)
    @rule()
    def serve(self) -> None:
        self.journal.serve(f"g{next(self.numbers)}")

    @rule()
    def submit(self) -> None:
        for name in self.journal.due():
            self.runs[name] += 1
            assert self.runs[name] <= 2
            assert name not in self.ended

    @rule(name=requests)
    def schedule(self, name: str) -> None:
        self.journal.schedule(name)

    @rule(name=consumes(requests))
    def end(self, name: str) -> None:
        if name in self.journal:
            self.journal.end(name)
            self.note_end(name)

    @precondition(lambda self: self.journal.generation is not None)
    @rule()
    def lose(self) -> None:
        submitted = self.submitted()
        losses = self.journal.lose(self.journal.generation or "")
        assert set(losses.held) | set(losses.failed) == submitted
        for name in losses.failed:
            assert self.runs[name] == 2
            self.note_end(name)

    def submitted(self) -> set[str]:
        return {name for name in self.journal if self.journal._entries[name].generation is not None}

    def note_end(self, name: str) -> None:
        assert name not in self.ended
        self.ended.add(name)

    @invariant()
    def the_books_are_balanced(self) -> None:
        self.journal.check()
        assert set(self.journal) == set(self.runs) - self.ended


Books.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
