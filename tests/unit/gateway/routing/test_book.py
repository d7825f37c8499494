"""What is charged is released once; what groups say is added to it, and never instead of it."""

import math

import pytest

from glm_gateway.routing.book import FARTHEST, PRIOR_TOKENS_PER_S, Book, Load, others_share
from glm_gateway.routing.prefix import Prefix

PREFIX = Prefix((1, 2), 1024)


def test_a_charge_is_released_once() -> None:
    book = Book()
    charge = book.charge("g0", owed=100, held=300)
    account = book.account("g0")
    assert (account.owed, account.held, book.num_charges) == (100, 300, 1)
    assert book.release(charge)
    assert not book.release(charge)
    assert (account.owed, account.held, book.num_charges) == (0, 0, 0)
    book.check()


def test_after_the_first_token_nothing_is_owed_and_the_prompt_is_as_long_as_the_group_says() -> None:
    book = Book()
    charge = book.charge("g0", owed=100, held=300)
    book.begin(charge, 320)
    book.grow(charge, 5)
    account = book.account("g0")
    assert (account.owed, account.held) == (0, 325)
    book.begin(charge)
    assert (account.owed, account.held) == (0, 325)
    book.release(charge)
    assert (account.owed, account.held) == (0, 0)


def test_a_reply_is_opened_before_its_prompt_is_computed_so_all_of_it_is_owed_still() -> None:
    book = Book()
    charge = book.charge("g0", owed=100, held=300)
    account = book.account("g0")
    book.begin(charge, 600)
    assert (account.owed, account.held) == (200, 600), "the estimate was half of it, so it was of what is new"
    book.begin(charge, 0)
    assert (account.owed, account.held) == (0, 0)
    book.check()


def test_a_group_that_says_nothing_before_its_first_token_has_computed_the_prompt_by_then() -> None:
    book = Book()
    charge = book.charge("g0", owed=100, held=300)
    book.begin(charge)
    assert (book.account("g0").owed, book.account("g0").held) == (0, 300)


def test_a_charge_that_was_released_does_not_grow() -> None:
    book = Book()
    charge = book.charge("g0", owed=1, held=1)
    book.release(charge)
    book.begin(charge, 100)
    book.grow(charge, 100)
    assert book.account("g0").held == 0
    book.check()


def test_a_push_says_what_others_have_and_never_what_is_ours() -> None:
    book = Book()
    book.charge("g0", owed=100, held=300)
    account = book.account("g0")
    book.hear("g0", Load(in_flight_tokens=1000, tokens_to_prefill=150))
    assert (account.others_held, account.others_owed) == (700, 50)
    book.hear("g0", Load(in_flight_tokens=0, tokens_to_prefill=0))  # it has not got ours yet
    assert (account.others_held, account.others_owed, account.held, account.owed) == (0, 0, 300, 100)
    assert account.in_flight_tokens == 300


def test_a_group_that_says_nothing_of_a_number_keeps_the_last_one() -> None:
    book = Book()
    book.hear("g0", Load(in_flight_tokens=1000))
    book.hear("g0", Load(tokens_to_prefill=10))
    assert (book.account("g0").others_held, book.account("g0").others_owed) == (1000, 10)


@pytest.mark.parametrize(("wait_s", "believed_s"), [(2.5, 2.5), (0.0, 0.0), (None, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_the_oldest_wait_is_the_last_one_that_can_be_one(wait_s: float | None, believed_s: float) -> None:
    book = Book()
    book.hear("g0", Load(oldest_wait_s=1.0))
    book.hear("g0", Load(oldest_wait_s=wait_s))
    assert book.account("g0").oldest_wait_s == believed_s


def test_a_group_that_has_not_measured_is_as_fast_as_the_usual_one() -> None:
    book = Book()
    assert book.account("g0").tokens_per_s == PRIOR_TOKENS_PER_S
    for group, speed in (("g1", 9_000.0), ("g2", 10_000.0), ("g3", 11_000.0)):
        book.hear(group, Load(prefill_tokens_per_s=speed))
    assert book.account("g0").tokens_per_s == 10_000.0
    assert book.account("new").tokens_per_s == 10_000.0
    assert book.account("g3").tokens_per_s == 11_000.0


@pytest.mark.parametrize("speed", [0.0, -1.0, 5e-324, 1e300, math.nan, math.inf, None])
def test_a_speed_that_is_none_is_not_believed(speed: float | None) -> None:
    book = Book()
    book.hear("g0", Load(prefill_tokens_per_s=8_000.0))
    book.hear("g0", Load(prefill_tokens_per_s=speed))
    assert book.account("g0").tokens_per_s == 8_000.0


def test_no_group_is_taken_for_much_slower_or_faster_than_the_others() -> None:
    book = Book()
    for group, speed in (("g0", 1.0), ("g1", 1000.0), ("g2", 1000.0), ("g3", 1e9)):
        book.hear(group, Load(prefill_tokens_per_s=speed))
    speeds = [book.account(f"g{number}").tokens_per_s for number in range(4)]
    assert speeds == [1000 / FARTHEST, 1000, 1000, 1000 * FARTHEST]


def test_a_group_forgets_prefixes_as_its_cache_does() -> None:
    book = Book()
    book.hear("g0", Load(kv_tokens=256))
    book.use("g0", PREFIX, 0.0)
    assert book.account("g0").holdings.known_bytes(PREFIX, 0.0) == 1024
    book.use("g0", Prefix((7,), 512), 0.0)
    assert book.account("g0").holdings.known_bytes(PREFIX, 0.0) == 512


def test_a_group_that_begins_anew_holds_nothing_and_keeps_our_charges() -> None:
    book = Book()
    charge = book.charge("g0", owed=10, held=20)
    book.use("g0", PREFIX, 0.0)
    book.hear("g0", Load(in_flight_tokens=500, prefill_tokens_per_s=1.0))
    book.forget("g0")
    account = book.account("g0")
    assert (account.owed, account.held, account.others_held) == (10, 20, 0)
    assert account.holdings.known_bytes(PREFIX, 0.0) == 0
    assert account.tokens_per_s == PRIOR_TOKENS_PER_S
    assert book.release(charge)
    book.check()


def test_groups_that_are_gone_leave_nothing_behind() -> None:
    book = Book()
    kept = book.charge("busy", owed=0, held=0)
    for name in ("idle", "busy", "unknown"):
        if name != "unknown":
            book.account(name)
        book.forget(name)
    assert list(book._accounts) == ["busy"]
    book.release(kept)
    assert book._accounts == {}


def test_the_part_of_others_is_what_of_the_tokens_in_flight_is_not_ours() -> None:
    book = Book()
    accounts = [book.account("g0"), book.account("g1")]
    assert others_share(accounts) == 0.0
    book.charge("g0", owed=0, held=300)
    assert others_share(accounts) == 0.0
    book.hear("g0", Load(in_flight_tokens=400))
    book.hear("g1", Load(in_flight_tokens=500))
    assert others_share(accounts) == 600 / 900
