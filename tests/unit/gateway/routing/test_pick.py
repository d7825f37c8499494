"""A request goes where its prompt is known, unless it waits there longer than computing it again would take."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_gateway.routing.book import Book, Load
from glm_gateway.routing.pick import HELD_WEIGHT, SILENCE_S, Choice, Group, Request, owed_tokens, pick
from glm_gateway.routing.prefix import BLOCKS_A_SIZE, ENDS, Prefix

SPEED = 1000.0
LAWS = settings(derandomize=True, deadline=None)
Names = Sequence[str]


def a_prefix(blocks: int, of: int = 1) -> Prefix:
    """Return a prompt of so many blocks; those of the same number begin alike."""
    return Prefix(tuple(1000 * of + place for place in range(blocks)), ENDS[blocks - 1] if blocks else 0)


def a_request(key: str = "r", prompt_tokens: int = 1024, blocks: int = 0, of: int = 1, **given: object) -> Request:
    return Request(key=key, prompt_tokens=prompt_tokens, prefix=a_prefix(blocks, of), **given)  # type: ignore[arg-type]


def groups(count: int, **given: object) -> list[Group]:
    return [Group(name=f"g{number}", **given) for number in range(count)]  # type: ignore[arg-type]


def a_book(count: int, **in_flight: int) -> Book:
    """Return the book of groups of one speed; others have so much in flight."""
    book = Book()
    for number in range(count):
        load = Load(in_flight_tokens=0, tokens_to_prefill=in_flight.get(f"g{number}", 0), prefill_tokens_per_s=SPEED)
        book.hear(f"g{number}", load)
    return book


def picked(request: Request, among: Sequence[Group], book: Book, now: float = 0.0) -> Choice:
    choice = pick(request, among, book, now)
    assert choice is not None
    return choice


def test_a_request_is_charged_in_the_call_that_places_it() -> None:
    book = a_book(2)
    choice = picked(a_request(), groups(2), book)
    account = book.account(choice.group)
    assert (account.owed, account.held) == (1024, 1024)
    assert (choice.why, choice.wait_s, choice.known_tokens) == ("least_loaded", 1.024, 0)
    assert picked(a_request(), groups(2), book).group != choice.group


def test_a_request_that_waits_owes_what_no_group_knows_of_it() -> None:
    book = a_book(2)
    book.use("g1", a_prefix(2), 0.0)
    assert owed_tokens(a_request(blocks=4), groups(2), book, 0.0) == 512
    assert owed_tokens(a_request(blocks=4), groups(2, is_ready=False), book, 0.0) == 1024
    assert owed_tokens(a_request(blocks=4, of=2), groups(2), book, 0.0) == 1024
    assert (book.account("g0").owed, book.account("g1").owed) == (0, 0)


def test_a_prompt_that_is_known_is_charged_what_must_be_computed() -> None:
    book = a_book(2)
    book.use("g1", a_prefix(2), 0.0)
    choice = picked(a_request(blocks=4), groups(2), book)
    assert (choice.group, choice.why, choice.known_tokens, choice.wait_s) == ("g1", "prefix", 512, 0.512)
    assert (book.account("g1").owed, book.account("g1").held) == (512, 1024)


def test_the_last_token_of_a_prompt_that_is_known_whole_is_computed() -> None:
    book = a_book(1)
    book.use("g0", a_prefix(4), 0.0)
    assert picked(a_request(blocks=4), groups(1), book).known_tokens == 1023
    assert [picked(a_request(blocks=4, prompt_tokens=few), groups(1), book).known_tokens for few in (0, 1)] == [0, 0]


def test_a_group_that_is_sent_a_prompt_is_believed_to_hold_it() -> None:
    book = a_book(4)
    first = picked(a_request(blocks=4), groups(4), book)
    book.release(first.charge)
    assert picked(a_request(blocks=4), groups(4), book).group == first.group


@pytest.mark.parametrize(("ahead", "stays"), [(0, True), (2048 - 2, True), (2048 + 2, False)])
def test_a_request_stays_until_the_wait_there_is_what_computing_its_prompt_twice_takes(ahead: int, stays: bool) -> None:
    """Once it would wait as long at another group, which must compute it first; once more is what moving would cost."""
    book = a_book(2, g0=ahead)
    book.use("g0", a_prefix(16), 0.0)
    choice = picked(a_request(prompt_tokens=1025, blocks=16), groups(2), book)
    assert (choice.group, choice.why) == (("g0", "prefix") if stays else ("g1", "least_loaded"))


def test_who_must_move_goes_to_the_longest_prefix_among_the_nearly_least_loaded() -> None:
    book = a_book(4, g0=100_000, g1=10_000, g2=9_500, g3=9_700)
    book.use("g0", a_prefix(16), 0.0)
    book.use("g1", a_prefix(2), 0.0)
    book.use("g3", a_prefix(1), 0.0)
    choice = picked(a_request(prompt_tokens=2048, blocks=16), groups(4), book)
    assert (choice.group, choice.why, choice.known_tokens) == ("g1", "least_loaded", 256)


def test_among_equal_homes_the_least_loaded_is_taken() -> None:
    book = a_book(3, g0=500, g2=400)
    for name in ("g0", "g2"):
        book.use(name, a_prefix(16), 0.0)
    assert picked(a_request(prompt_tokens=2048, blocks=16), groups(3), book).group == "g2"


def test_a_group_that_is_twice_as_fast_gets_twice_as_much() -> None:
    book = a_book(2)
    book.hear("g1", Load(prefill_tokens_per_s=2 * SPEED))
    counts = Counter(picked(a_request(f"r{number}"), groups(2), book).group for number in range(300))
    assert counts["g1"] / counts["g0"] == pytest.approx(2, rel=0.15)


def test_what_runs_elsewhere_counts_less_than_what_must_be_computed() -> None:
    book = a_book(2, g0=1000)
    book.hear("g1", Load(in_flight_tokens=round(500 / HELD_WEIGHT)))
    assert picked(a_request(), groups(2), book).group == "g1"
    book = a_book(2, g0=1000)
    book.hear("g1", Load(in_flight_tokens=round(2000 / HELD_WEIGHT)))
    assert picked(a_request(), groups(2), book).group == "g0"


def test_a_request_waits_at_least_as_long_as_the_oldest_has_waited() -> None:
    """Tokens do not show what it waits for: a place among those that run, or KV blocks."""
    book = a_book(2, g0=500, g1=400)
    book.hear("g1", Load(oldest_wait_s=0.9))
    assert picked(a_request(), groups(2), book).group == "g0"
    book = a_book(2, g0=500, g1=400)
    book.hear("g1", Load(oldest_wait_s=0.3))
    choice = picked(a_request(), groups(2), book)
    assert (choice.group, choice.wait_s) == ("g1", pytest.approx(1.424))


def test_a_group_that_is_not_ready_or_leaves_gets_nothing() -> None:
    among = [Group(name="g0", is_ready=False), Group(name="g1", is_leaving=True)]
    book = a_book(3)
    assert pick(a_request(), among, book, 0.0) is None
    assert pick(a_request(), [], book, 0.0) is None
    assert book.num_charges == 0
    book.use("g0", a_prefix(16), 0.0)
    choice = picked(a_request(blocks=16), [*among, Group(name="g2")], book)
    assert (choice.group, choice.why) == ("g2", "only")


def test_a_silent_group_goes_behind_all_that_are_heard_and_before_none() -> None:
    book = a_book(2, g1=50_000)
    among = [Group(name="g0", heard_s=0.0), Group(name="g1", heard_s=5.0)]
    assert picked(a_request(), among, book, SILENCE_S).group == "g0"
    assert picked(a_request(), among, book, SILENCE_S + 0.1).group == "g1"
    assert picked(a_request(), among[:1], book, 100.0).group == "g0"


def test_what_silent_groups_said_last_counts_no_more_and_what_is_ours_there_does() -> None:
    book = a_book(2, g0=50_000)
    book.hear("g0", Load(in_flight_tokens=50_000, oldest_wait_s=30.0))
    silent = [Group(name=name, heard_s=0.0) for name in ("g0", "g1")]
    assert {picked(a_request(), silent, book, SILENCE_S).group for _ in range(4)} == {"g1"}
    counts = Counter(picked(a_request(), silent, book, SILENCE_S + 0.1).group for _ in range(4))
    assert counts == {"g0": 4}, "until it has as much of ours"
    assert picked(a_request(), silent, book, SILENCE_S + 0.1).wait_s < 10.0


def test_a_group_of_workers_from_before_that_never_push_is_as_good_as_the_others() -> None:
    among = [Group(name="g0", heard_s=100.0), Group(name="g1")]
    counts = Counter(picked(a_request(f"r{number}"), among, a_book(2), 100.0).group for number in range(100))
    assert min(counts["g0"], counts["g1"]) > 30


def test_a_group_where_the_request_has_failed_is_taken_when_there_is_no_other() -> None:
    avoided = a_request(blocks=16, avoid=frozenset({"g0"}))
    book = a_book(2, g1=50_000)
    book.use("g0", a_prefix(16), 0.0)
    assert picked(avoided, groups(2), book).group == "g1"
    assert picked(avoided, groups(1), book).group == "g0"


def test_prompts_that_begin_alike_begin_at_one_group_also_at_a_replica_that_knows_none_of_them() -> None:
    for of in range(20):
        chosen = {
            picked(a_request(f"r{of}", blocks=4 + blocks, of=of), groups(8), a_book(8)).group for blocks in (0, 9)
        }
        assert len(chosen) == 1
    counts = Counter(picked(a_request(blocks=4, of=of), groups(4), a_book(4)).group for of in range(400))
    assert min(counts.values()) > 60


def test_what_a_full_cache_must_forget_for_a_prompt_counts_as_if_it_were_computed_twice_more() -> None:
    for ahead, expected in ((1800, "g1"), (2600, "g0")):
        book = a_book(2, g1=ahead)
        book.hear("g0", Load(kv_tokens=1024))
        book.use("g0", a_prefix(8, of=9), 0.0)
        choice = picked(a_request(), groups(2), book)
        assert choice.group == expected
        assert choice.wait_s == pytest.approx(1.024 + (ahead / SPEED if expected == "g1" else 0)), "as it is expected"


def conversation(number: int, turns: int) -> Prefix:
    """Return the prompt of one turn of a conversation: instructions that all have, then its own blocks."""
    shared = a_prefix(4).hashes
    own = tuple(10_000 + 100 * number + place for place in range(4 * turns))
    return Prefix(shared + own, ENDS[len(shared + own) - 1])


def test_a_conversation_that_changes_the_replica_finds_what_it_has_begun_unless_that_group_is_busy() -> None:
    def replica() -> Book:
        book = a_book(4)
        for name in ("g0", "g1", "g2", "g3"):
            book.use(name, a_prefix(4), 0.0)
            book.hear(name, Load(in_flight_tokens=4_000))  # of the other one
        return book

    books, found, began = [replica(), replica()], 0, Counter[str]()
    for number in range(200):
        asked = [Request(key="r", prompt_tokens=2048, prefix=conversation(number, turns)) for turns in (1, 2)]
        first, second = (picked(each, groups(4), book) for each, book in zip(asked, books, strict=True))
        began[first.group] += 1
        found += first.group == second.group
        for book, choice in zip(books, (first, second), strict=True):
            book.release(choice.charge)
    assert found == 200
    assert min(began.values()) > 25, "conversations that begin with the same instructions are not all at one group"
    books[1].hear(first.group, Load(in_flight_tokens=4_000, tokens_to_prefill=20_000))
    assert picked(asked[1], groups(4), books[1]).group != first.group


def test_who_is_alone_with_its_groups_goes_by_load_and_not_by_names() -> None:
    for number in range(20):
        book = a_book(4, g0=400, g1=400, g2=400)
        request = Request(key="r", prompt_tokens=2048, prefix=conversation(number, 1))
        assert picked(request, groups(4), book).group == "g3"


def test_a_burst_of_a_thousand_equals_without_a_push_spreads_evenly() -> None:
    book = a_book(4)
    counts = Counter(picked(a_request(f"r{number}"), groups(4), book).group for number in range(1000))
    assert max(counts.values()) <= 1.1 * 250


def test_a_burst_of_a_thousand_behind_one_prompt_spreads_evenly_and_late_enough_to_use_it() -> None:
    book = a_book(4)
    choices = [picked(a_request(f"r{number}", 8192, blocks=36), groups(4), book) for number in range(1000)]
    counts = Counter(choice.group for choice in choices)
    assert max(counts.values()) <= 1.1 * 250
    assert len({choice.group for choice in choices[:2]}) == 1
    computed = sum(8192 - choice.known_tokens for choice in choices)
    assert computed <= 4 * 8192 + 1000 * 8192 * (1 - ENDS[35] / a_prefix(36).num_bytes) + 1000


@LAWS
@given(num_groups=st.integers(1, 16), each=st.integers(1, 40), tokens=st.integers(1, 100_000))
def test_any_burst_of_equals_over_equal_groups_is_even(num_groups: int, each: int, tokens: int) -> None:
    book, among = a_book(num_groups), groups(num_groups)
    counts = Counter(picked(a_request(f"r{number}", tokens), among, book).group for number in range(each * num_groups))
    assert max(counts.values()) <= 1.1 * each + 1.1
    if each >= 6:
        assert max(counts.values()) <= 1.3 * each


@LAWS
@given(num_groups=st.integers(2, 8), blocks=st.integers(2, 60), answered=st.booleans(), number=st.integers(1, 400))
def test_a_hot_prefix_spreads(num_groups: int, blocks: int, answered: bool, number: int) -> None:
    """A group is ahead of another one by what weighs as much as computing the prompt twice, at most."""
    book, among = a_book(num_groups), groups(num_groups)
    counts: Counter[str] = Counter()
    for place in range(number):
        choice = picked(a_request(f"r{place}", ENDS[blocks - 1] // 4, blocks=blocks), among, book)
        counts[choice.group] += 1
        if answered:
            book.begin(choice.charge)
    least = min(counts[group.name] for group in among)
    assert max(counts.values()) <= 1.1 * least + 2 / HELD_WEIGHT + 2


@LAWS
@given(
    known=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    ahead=st.integers(0, 10**6),
    blocks=st.integers(1, 40),
    tokens=st.integers(1, 10**6),
)
def test_affinity_is_kept_while_load_is_even(known: list[int], ahead: int, blocks: int, tokens: int) -> None:
    book = a_book(len(known), **{f"g{number}": ahead for number in range(len(known))})
    for number, each in enumerate(known):
        book.use(f"g{number}", a_prefix(each), 0.0)
    request = a_request(prompt_tokens=tokens, blocks=blocks)
    choice = picked(request, groups(len(known)), book)
    best = min(max(known), blocks)
    assert min(known[int(choice.group[1:])], blocks) == best or choice.known_tokens == min(
        tokens * ENDS[best - 1] // ENDS[blocks - 1], tokens - 1
    )


loads = st.tuples(st.integers(0, 50_000), st.integers(0, 40), st.sampled_from([500.0, 1000.0, 1500.0]))


@LAWS
@given(
    states=st.lists(st.tuples(st.booleans(), st.booleans(), st.none() | st.floats(0, 10)), min_size=1, max_size=8),
    each=st.lists(loads, min_size=8, max_size=8),
    avoid=st.frozensets(st.sampled_from([f"g{number}" for number in range(8)])),
    order=st.randoms(use_true_random=False),
    blocks=st.integers(0, 40),
)
def test_the_choice_does_not_depend_on_the_order_of_groups_and_is_one_that_takes_requests(
    states: list[tuple[bool, bool, float | None]],
    each: list[tuple[int, int, float]],
    avoid: frozenset[str],
    order: object,
    blocks: int,
) -> None:
    among = [
        Group(name=f"g{number}", is_ready=ready, is_leaving=leaving, heard_s=heard)
        for number, (ready, leaving, heard) in enumerate(states)
    ]

    def book() -> Book:
        made = Book()
        for group, (tokens, known, speed) in zip(among, each, strict=False):
            made.hear(group.name, Load(tokens_to_prefill=tokens, prefill_tokens_per_s=speed))
            made.use(group.name, a_prefix(known), 0.0)
        return made

    request = a_request(blocks=blocks, avoid=avoid)
    choice = pick(request, among, book(), 10.0)
    shuffled = list(among)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choice == pick(request, shuffled, book(), 10.0)
    able = [group for group in among if group.takes_requests]
    assert (choice is None) == (not able)
    if choice is not None:
        chosen = next(group for group in able if group.name == choice.group)
        heard = [group for group in able if group.heard_s is None or 10.0 - group.heard_s <= SILENCE_S]
        assert chosen.name not in avoid or all(group.name in avoid for group in able)
        assert chosen in heard or not any(group.name not in avoid or chosen.name in avoid for group in heard)
        assert choice.wait_s > 0


def test_blocks_of_the_tests_are_those_of_the_finest_grain() -> None:
    assert a_prefix(4).num_bytes == 2048
    assert BLOCKS_A_SIZE == 16
