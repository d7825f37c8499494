"""The one list of reasons: complete, in order, in sentences."""

from itertools import groupby
from typing import get_args

import pytest

from glm_operator.api.reasons import REASONS, Reason, Severity, explained, is_bad, rank


def test_every_reason_has_a_meaning_and_the_two_are_in_one_order() -> None:
    assert tuple(REASONS) == get_args(Reason)


@pytest.mark.parametrize("reason", REASONS)
def test_a_meaning_is_a_clause_and_a_remedy_is_sentences(reason: Reason) -> None:
    meaning = REASONS[reason]
    assert meaning.sentence
    assert not meaning.sentence.endswith(".")
    assert meaning.sentence[0].islower() or meaning.sentence.startswith(("spec.", "API", "Prometheus"))
    assert meaning.remedy.endswith(".")
    assert meaning.remedy[0].isupper() or meaning.remedy.startswith("`")


def test_what_somebody_has_to_act_on_comes_first() -> None:
    severities = [meaning.severity for meaning in REASONS.values()]
    assert next(groupby(severities))[0] is Severity.BAD
    assert [rank(reason) for reason in REASONS] == sorted(rank(reason) for reason in REASONS)
    last_bad = max(rank(reason) for reason in REASONS if is_bad(reason))
    assert all(is_bad(reason) for reason in REASONS if rank(reason) <= last_bad)


def test_only_what_changes_by_itself_is_waited_for() -> None:
    for reason, meaning in REASONS.items():
        assert is_bad(reason) is (meaning.severity is Severity.BAD)
        assert (meaning.remedy == "Wait.") <= (meaning.severity is Severity.WAITING)


def test_every_reason_is_explained_to_who_asks_the_api_server() -> None:
    assert all(f"{reason}: {meaning.sentence}." in explained() for reason, meaning in REASONS.items())
