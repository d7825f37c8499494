"""What was spent of a month stays with the key and the group that it was spent by."""

from datetime import UTC, datetime

from glm_gateway.limits.limit import Unit
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.spent import Spent

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()


def entry(**fields: object) -> Entry:
    plain = {"id": "r", "at": NOON, "key": "a", "model": "m", "api": "openai", "outcome": "finished"}
    return Entry(**{**plain, **fields})  # type: ignore[arg-type]


def test_a_key_that_moves_to_another_group_leaves_there_what_it_spent() -> None:
    spent = Spent()
    spent.add(entry(group_of_keys="one", prompt=5, cached=2, answer=3, thinking=1, cost=70))
    spent.add(entry(group_of_keys="two", answer=10, cost=30))
    assert spent("key a", Unit.TOKENS, "2026-11") == 19
    assert spent("group one", Unit.TOKENS, "2026-11") == 9
    assert spent("group two", Unit.MONEY, "2026-11") == 30
    assert spent("key one", Unit.TOKENS, "2026-11") == 0


def test_a_month_is_its_own_and_is_forgotten_whole() -> None:
    spent = Spent()
    spent.add(entry(answer=1))
    spent.add(entry(at=NOON - 30 * 86_400, answer=2))
    assert spent("key a", Unit.TOKENS, "2026-10") == 2
    spent.forget_before("2026-11")
    assert spent("key a", Unit.TOKENS, "2026-10") == 0
    assert spent("key a", Unit.TOKENS, "2026-11") == 1
