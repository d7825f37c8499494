"""Lines of /load, in whatever pieces they come, and what routing makes of a group that is heard, lost or silent."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.groups.found import Found
from glm_gateway.groups.report import MAX_LINE_BYTES, BadLine, LineReader, Report
from glm_gateway.groups.roster import LAST_WORD_S, member_of
from glm_gateway.routing.book import Load

FOUND = Found(name="g0", host="10.0.0.1", port=8000, deployment="nano")
HEARD_S = 100.0


@given(st.lists(st.integers(0, 10**9), max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_lines_are_read_in_whatever_pieces_they_come(values: list[int], sizes: list[int]) -> None:
    data = b"".join(json.dumps({"in_flight_tokens": value, "later": [1]}).encode() + b"\n" for value in values)
    reader, read, place = LineReader(), [], 0
    for number in range(len(data)):
        size = sizes[number % len(sizes)]
        read += reader.feed(data[place : place + size])
        place += size
    assert [each.in_flight_tokens for each in read] == values


def test_what_a_group_does_not_say_or_know_is_none_and_never_zero() -> None:
    (report,) = LineReader().feed(b'{"kv_tokens":null,"ready":true}\n')
    assert report == Report(ready=True)
    assert report.load == Load()


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b'{"ready":1}\n',
        b"[]\n",
        b'{"in_flight_tokens":"7"}\n',
        b'{"model":"\xff"}\n',
        b'{"later":' + 20_000 * b"[" + b"\n",
        b"x" * (MAX_LINE_BYTES + 1),
    ],
)
def test_what_is_no_report_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(BadLine):
        LineReader().feed(line)


@pytest.mark.parametrize(
    ("found_ready", "said", "is_lost", "age_s", "is_ready"),
    [
        (False, True, False, 0.0, True),  # the group itself knows sooner than a probe
        (True, False, False, 0.0, False),
        (True, None, False, 0.0, True),
        (True, True, True, 1.0, True),
        (True, False, True, 1.0, False),  # its last word was no
        (False, True, True, 1.0, False),  # nobody hears it, and the source says no
        (True, False, True, LAST_WORD_S + 1, True),  # its word is too old
        (False, True, True, LAST_WORD_S + 1, False),
    ],
)
def test_a_group_that_is_heard_knows_best_and_a_lost_one_needs_both(
    found_ready: bool, said: bool | None, is_lost: bool, age_s: float, is_ready: bool
) -> None:
    found = Found(name="g0", host="10.0.0.1", port=8000, is_ready=found_ready)
    member = member_of(found, Report(ready=said), HEARD_S, is_lost=is_lost, now=HEARD_S + age_s)
    assert member.group.is_ready is is_ready


def test_who_leaves_by_its_own_word_or_by_the_source_leaves() -> None:
    leaving = Found(name="g0", host="10.0.0.1", port=8000, is_leaving=True)
    for found, report in ((leaving, Report(ready=True)), (FOUND, Report(ready=True, leaving=True))):
        assert not member_of(found, report, HEARD_S, is_lost=False, now=HEARD_S).group.takes_requests


def test_a_worker_from_before_is_taken_as_the_source_says_and_never_suspect() -> None:
    member = member_of(FOUND, None, None, is_lost=False, now=HEARD_S)
    assert (member.group.heard_s, member.group.takes_requests, member.incarnation) == (None, True, "")


def test_the_revision_comes_from_the_group_where_the_source_does_not_know_it() -> None:
    member = member_of(FOUND, Report(revision="r1", incarnation="i-1"), HEARD_S, is_lost=False, now=HEARD_S)
    assert (member.group.revision, member.group.deployment, member.incarnation) == ("r1", "nano", "i-1")
