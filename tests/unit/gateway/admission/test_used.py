"""What a request used, by how far it came: exact where that is known, never less than what was computed."""

from typing import Any

import pytest

from glm_edge.frames import Close, Open, Tokens
from glm_gateway.access.decide import Caller
from glm_gateway.admission.metering import Metering
from glm_gateway.admission.reserved import Reserved
from glm_gateway.admission.used import used_by
from glm_gateway.continuation.progress import Bounds, Progress
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.reserve import Reservation
from glm_gateway.limits.tokens import Usage
from glm_gateway.proxy.relay.outcome import CUT, GROUP_LOST, Outcome
from glm_gateway.proxy.relay.result import Result
from glm_gateway.surfaces.routes import Api
from glm_gateway.surfaces.usage import Told

RESERVED = Usage(prompt=10, answer=30, thinking=10)
OPEN = Open(id="c", created=1, seeds=[1], status=200, headers=[], num_prompt_tokens=7, fingerprint="f")
TOKENS = Tokens(ids=[(0, [1, 2, 3, 4])], state=b"")
CLOSE = Close(num_prompt_tokens=7, num_cached_tokens=2, num_reasoning_tokens=1, num_answer_tokens=3, reasons=["stop"])
TOLD = Told(prompt=8, cached=1, answer=5, reasoning=2)

ASKED: dict[str, Any] = {"group": "g", "is_asked": True}
LOST: dict[str, Any] = {"group": "g", "failure": GROUP_LOST, "outcome": Outcome.FAILED}
STOPPED: dict[str, Any] = {**ASKED, "failure": CUT, "outcome": Outcome.FAILED}
NOTHING, PROMPT, SO_FAR = Usage(), Usage(prompt=10), Usage(prompt=7, answer=3, thinking=1)


def result(*frames: Any, **fields: Any) -> Result:
    progress = Progress(Bounds(), 0.0)
    for frame in frames:
        progress.take(frame)
    return Result(progress, **fields)


@pytest.mark.parametrize(
    ("found", "at_its_end", "on_its_way"),
    [
        (result(), NOTHING, NOTHING),
        (result(**ASKED), PROMPT, NOTHING),
        (result(**LOST), NOTHING, NOTHING),
        (result(**STOPPED), NOTHING, NOTHING),
        (result(OPEN, **ASKED), Usage(prompt=7), Usage(prompt=7)),
        (result(OPEN, TOKENS, **ASKED), SO_FAR, SO_FAR),
        (result(OPEN, TOKENS, **LOST), SO_FAR, SO_FAR),
        (result(OPEN, TOKENS, CLOSE, **ASKED), Usage(7, 2, 3, 1), Usage(7, 2, 3, 1)),
        (result(is_plain=True, plain_status=200, **ASKED), RESERVED, RESERVED),
        (result(is_plain=True, plain_status=200, told=TOLD, **ASKED), Usage(8, 1, 3, 2), Usage(8, 1, 3, 2)),
        (result(is_plain=True, plain_status=400, outcome=Outcome.REFUSED, **ASKED), NOTHING, NOTHING),
    ],
    ids=[
        "waits",
        "a group has it",
        "lost before it began",
        "the gateway stops",
        "begun",
        "in the middle",
        "lost in the middle",
        "whole",
        "plain, and silent of what it used",
        "plain, and says what it used",
        "refused",
    ],
)
def test_what_is_known_of_a_request_counts(found: Result, at_its_end: Usage, on_its_way: Usage) -> None:
    assert used_by(found, RESERVED) == at_its_end
    assert used_by(found, RESERVED, is_over=False) == on_its_way


@pytest.mark.parametrize("is_over", [False, True])
@pytest.mark.parametrize("found", [result(**ASKED), result(**STOPPED)], ids=["on its way", "the gateway stops"])
def test_a_response_in_the_background_counts_as_reserved_from_when_a_group_has_it(found: Result, is_over: bool) -> None:
    assert used_by(found, RESERVED, in_background=True, is_over=is_over) == RESERVED


@pytest.mark.parametrize("is_over", [False, True])
def test_one_that_a_group_refused_counts_as_nothing_though_the_group_is_known(is_over: bool) -> None:
    found = result(**{**ASKED, "is_asked": False})
    assert used_by(found, RESERVED, in_background=True, is_over=is_over) == Usage()


def test_what_is_under_way_is_told_by_those_that_have_used_anything_and_not_settled() -> None:
    metering = Metering(quotas=QuotasConfig(), clock=lambda: 1_796_000_000.0)
    results = {"waits": result(), "writes": result(OPEN, TOKENS, **ASKED), "over": result(OPEN, TOKENS, **ASKED)}
    for id_, found in results.items():
        caller = Caller("alice", "research", None, "t")
        reserved = Reserved(caller, "m", Api.OPENAI, Reservation((), RESERVED, "2026-11"), [], metering.quotas)
        reserved.is_released = id_ == "over"
        metering.begin(reserved, id_, found)
    (entry,) = metering.under_way()
    assert (entry.id, entry.usage, entry.is_partial, entry.outcome) == ("writes", SO_FAR, True, "failed")
    assert (entry.key, entry.group_of_keys, entry.at) == ("alice", "research", 1_796_000_000.0)
