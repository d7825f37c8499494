"""The books of requests: nothing is lost, nothing ends twice, and who only waited is blamed for nothing."""

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.flights.journal import TRIAL_OUTPUTS, Journal, Losses, QueueLimits


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


def a_journal_that_lost(*computed: str, waiting: Sequence[str] = ()) -> Journal:
    """Return one whose generation g1 died as it computed these, with some more waiting; g2 serves."""
    journal = a_journal()
    journal.serve("g1")
    for name in (*computed, *waiting):
        journal.admit(name, 1)
    journal.due()
    for name in computed:
        journal.compute(name)
    assert journal.lose("g1").failed == []
    journal.serve("g2")
    return journal


def tried(journal: Journal, name: str) -> None:
    """Let the engine compute a suspect until it is cleared."""
    journal.compute(name)
    for _ in range(TRIAL_OUTPUTS):
        journal.put_out(name)


def test_a_request_that_only_waits_is_not_blamed_however_often_its_generation_dies() -> None:
    journal = a_journal()
    journal.admit("a", 1)
    for generation in ("g1", "g2", "g3", "g4", "g5"):
        journal.serve(generation)
        assert journal.due() == ["a"]
        assert journal.lose(generation) == Losses(["a"], [])


def test_a_request_that_is_computed_in_two_steps_that_die_ends() -> None:
    journal = a_journal_that_lost("a")
    assert journal.due() == ["a"]
    journal.compute("a")
    assert journal.lose("g2") == Losses([], ["a"])


def test_suspects_go_one_at_a_time_and_newcomers_when_all_have_a_place() -> None:
    journal = a_journal_that_lost("a", "b", waiting=["c"])
    assert journal.due() == ["a"]
    journal.admit("d", 1)
    assert (journal.due(), journal.has_due) == ([], False)
    tried(journal, "a")
    assert journal.has_due
    assert journal.due() == ["b"]
    assert not journal.has_due
    journal.compute("b")
    assert journal.has_due
    assert journal.due() == ["c", "d"]


def test_of_suspects_the_most_important_goes_first_then_the_one_with_the_shortest_prompt_then_the_oldest() -> None:
    journal = a_journal()
    journal.serve("g1")
    for name, num_tokens, priority in (("a", 1, 1), ("b", 9, 0), ("c", 2, 0), ("d", 2, 0)):
        journal.admit(name, num_tokens, priority)
    for name in journal.due():
        journal.compute(name)
    journal.lose("g1")
    journal.serve("g2")
    for name in "cdba":
        assert journal.due() == [name]
        tried(journal, name)


def test_nobody_waits_for_one_that_was_suspected_twice_but_it_goes_first() -> None:
    journal = a_journal_that_lost("a", "b")
    for name in "ab":
        assert journal.due() == [name]
        tried(journal, name)
    journal.lose("g2")
    journal.admit("c", 1)
    journal.serve("g3")
    assert journal.due() == ["a", "c"]


def test_of_suspects_the_one_with_a_long_trial_goes_last() -> None:
    journal = a_journal_that_lost("a", "b")
    journal.due()
    tried(journal, "a")
    assert journal.due() == ["b"]
    journal.lose("g2")
    journal.serve("g3")
    assert journal.due() == ["b"]
    tried(journal, "b")
    assert journal.due() == ["a"]


@settings(max_examples=200, deadline=None)
@given(
    num_running=st.integers(1, 12),
    num_queued=st.integers(0, 60),
    num_free=st.integers(0, 3),
    per_step=st.integers(0, 4),
    long=st.integers(1, 50),
)
def test_what_ran_when_its_generation_died_goes_on_as_soon_with_a_queue_as_without(
    num_running: int, num_queued: int, num_free: int, per_step: int, long: int
) -> None:
    """long: tokens of each newcomer. per_step: newcomers that come while suspects are tried."""
    num_places = num_running + num_free
    journal = a_journal(requests=10**6, tokens=10**9, seqs=num_places)
    journal.serve("g1")
    running = [f"r{number}" for number in range(num_running)]
    for name in (*running, *(f"q{number}" for number in range(num_queued))):
        journal.admit(name, 1)
    journal.due()
    for name in running:
        journal.compute(name)
    journal.lose("g1")
    journal.serve("g2")
    engine, left, began = deque(journal.due()), dict.fromkeys(journal, long), set[str]()
    left.update(dict.fromkeys(running, 10**6))
    computed: list[str] = []
    for step in range(num_running * TRIAL_OUTPUTS):
        while engine and len(computed) < num_places:
            computed.append(engine.popleft())
        for name in computed:
            journal.compute(name)
        for name in list(computed):
            journal.put_out(name)
            left[name] -= 1
            if not left[name]:
                journal.end(name)
                computed.remove(name)
        began.update(computed)
        for number in range(per_step):
            journal.admit(f"n{step}-{number}", 1)
            left[f"n{step}-{number}"] = long
        engine += journal.due()
    assert set(running) <= began


def test_a_suspect_whose_client_leaves_lets_the_next_one_go() -> None:
    journal = a_journal_that_lost("a", "b", "c")
    assert journal.due() == ["a"]
    journal.end("b")
    journal.end("a")
    assert journal.has_due
    assert journal.due() == ["c"]


def test_a_death_during_a_trial_is_blamed_on_the_one_on_trial_alone() -> None:
    journal = a_journal_that_lost("a", "b", "c", waiting=["d"])
    journal.due()
    tried(journal, "a")
    assert journal.due() == ["b"]
    journal.compute("b")
    assert journal.lose("g2") == Losses(["a"], ["b"])
    journal.serve("g3")
    assert journal.due() == ["c"]
    tried(journal, "c")
    assert journal.due() == ["a", "d"]


def test_a_death_before_the_one_on_trial_is_computed_is_not_blamed_on_it() -> None:
    journal = a_journal_that_lost("a", "b")
    journal.due()
    tried(journal, "a")
    assert journal.due() == ["b"]
    assert journal.lose("g2") == Losses(["a", "b"], [])


def test_a_request_that_is_preempted_is_not_suspected_of_a_step_without_it() -> None:
    journal = a_journal()
    journal.serve("g1")
    for name in "abc":
        journal.admit(name, 1)
    journal.due()
    for name in "abc":
        journal.compute(name)
    for name in "bc":
        journal.preempt(name)
    journal.compute("c")
    journal.lose("g1")
    journal.serve("g2")
    for name in "ac":
        assert journal.due() == [name]
        tried(journal, name)
    assert journal.due() == ["b"]
    assert journal.lose("g2").failed == []


def test_a_request_that_was_suspected_twice_is_on_trial_for_as_long_as_it_runs() -> None:
    journal = a_journal_that_lost("a")
    journal.due()
    tried(journal, "a")
    assert journal.lose("g2") == Losses(["a"], [])
    journal.serve("g3")
    assert journal.due() == ["a"]
    tried(journal, "a")
    for _ in range(100):
        journal.put_out("a")
    assert journal.lose("g3") == Losses([], ["a"])


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_request_that_kills_whoever_computes_it_ends_with_the_second_death_and_takes_nobody_along(place: int) -> None:
    journal, left = a_journal(requests=20), {f"r{number}": 5 for number in range(8)}
    killer = f"r{place}"
    for name in left:
        journal.admit(name, 1)
    failed: list[str] = []
    for generation in ("g1", "g2", "g3"):
        journal.serve(generation)
        failed += run_until_dead(journal, left, killer)
    assert failed == [killer]
    assert list(left) == []


def run_until_dead(journal: Journal, left: dict[str, int], killer: str) -> list[str]:
    """Compute all that is due, a token a step, until all have ended or the killer is computed; return who failed."""
    running: list[str] = []
    while True:
        running += journal.due()
        if not running:
            return []
        for name in running:
            journal.compute(name)
        if killer in running:
            failed = journal.lose(journal.generation or "").failed
            for name in failed:
                del left[name]
            return failed
        for name in list(running):
            journal.put_out(name)
            left[name] -= 1
            if not left[name]:
                journal.end(name)
                running.remove(name)
                del left[name]


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
        self.suspicions: dict[str, int] = {}
        self.ended: set[str] = set()
        self.numbers = iter(range(10**6))

    @rule(target=requests, num_tokens=st.integers(1, 30), priority=st.integers(-1, 1))
    def admit(self, num_tokens: int, priority: int):
        name = f"r{next(self.numbers)}"
        try:
            self.journal.admit(name, num_tokens, priority)
        except Overloaded:
            assert name not in self.journal
            return multiple()
        self.suspicions[name] = 0
        return name

    @precondition(lambda self: self.journal.generation is None)
    @rule()
    def serve(self) -> None:
        self.journal.serve(f"g{next(self.numbers)}")

    @rule()
    def submit(self) -> None:
        has_due, due = self.journal.has_due, self.journal.due()
        assert has_due == bool(due)
        assert self.ended.isdisjoint(due)
        entries = [self.journal._entries[name] for name in self.journal]
        are_placed = not any(e.is_suspect and e.num_suspicions == 1 and e.is_waiting for e in entries)
        newcomers_held = [e for e in entries if e.generation is None and not e.is_suspect]
        assert self.journal.generation is None or not (are_placed and newcomers_held), "they wait for no reason"
        newcomers_due = [name for name in due if not self.journal._entries[name].is_suspect]
        assert are_placed or not newcomers_due, "suspects wait behind them"
        assert newcomers_due == due[len(due) - len(newcomers_due) :], "a suspect goes first"

    @rule(name=requests)
    def schedule(self, name: str) -> None:
        self.journal.schedule(name)

    @rule(name=requests)
    def compute(self, name: str) -> None:
        self.journal.compute(name)

    @rule(name=requests)
    def preempt(self, name: str) -> None:
        self.journal.preempt(name)

    @rule(name=requests)
    def put_out(self, name: str) -> None:
        self.journal.put_out(name)

    @rule(name=consumes(requests))
    def end(self, name: str) -> None:
        if name in self.journal:
            self.journal.end(name)
            self.note_end(name)

    @precondition(lambda self: self.journal.generation is not None)
    @rule()
    def lose(self) -> None:
        submitted = self.submitted()
        computed = {name for name in submitted if self.journal._entries[name].is_computed}
        losses = self.journal.lose(self.journal.generation or "")
        assert set(losses.held) | set(losses.failed) == submitted
        assert len(losses.failed) <= 1, "one at a time is on trial"
        for name in computed:
            self.suspicions[name] += 1
        for name in losses.failed:
            assert name in computed
            assert self.suspicions[name] >= 2
            self.note_end(name)

    def submitted(self) -> set[str]:
        return {name for name in self.journal if self.journal._entries[name].generation is not None}

    def note_end(self, name: str) -> None:
        assert name not in self.ended
        self.ended.add(name)

    @invariant()
    def the_books_are_balanced(self) -> None:
        self.journal.check()
        assert set(self.journal) == set(self.suspicions) - self.ended


Books.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
