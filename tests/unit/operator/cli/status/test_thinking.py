"""What `glm status` shows of thinking: what the spec says, and what became of the chats that came meanwhile."""

from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from glm_operator.cli.status.drawing import draw
from glm_operator.cli.status.samples import Samples, Scrape, read_text
from glm_operator.cli.status.view import ThinkingView, view
from unit.operator.operator_builders import a_body

AUTO: dict[str, Any] = {"default": "Auto", "autoThreshold": 0.7, "visibility": "Hidden"}


def a_scrape(at_s: float, **decided: float) -> Scrape:
    """Return what a group shows that has decided so many, by mode and who: enabled_auto=3."""
    lines = ["glm_num_requests_running 1"]
    for name, count in decided.items():
        mode, _, by = name.partition("_")
        lines.append(f'glm_thinking_decisions_total{{group="chat-g0",mode="{mode}",by="{by}"}} {count}')
    found = read_text("\n".join(lines) + "\n")
    assert found is not None
    return Scrape(at_s, {"chat-g0": found})


def seen(*scrapes: Scrape, reasoning: object = None) -> ThinkingView | None:
    return whole(*scrapes, reasoning=reasoning).thinking


def whole(*scrapes: Scrape, reasoning: object = None) -> Any:
    samples = Samples()
    for scrape in scrapes:
        samples.add(scrape)
    return view(a_body(**({"reasoning": reasoning} if reasoning else {})), samples, datetime.now(UTC), "")


def shown(*scrapes: Scrape, reasoning: object = None) -> str:
    console = Console(width=200, file=StringIO())
    with console.capture() as captured:
        console.print(draw(whole(*scrapes, reasoning=reasoning)))
    return next(line for line in captured.get().splitlines() if line.startswith("Thinking"))


BEFORE = a_scrape(0, enabled_auto=10, disabled_auto=10, enabled_request=5, disabled_template=0)
AFTER = a_scrape(10, enabled_auto=11, disabled_auto=13, enabled_request=9, disabled_template=2)


def test_shares_are_of_the_chats_between_two_looks() -> None:
    assert seen(BEFORE, AFTER, reasoning=AUTO) == ThinkingView("Auto", 0.7, "Hidden", 10, 0.5, 4, 0.25)
    assert shown(BEFORE, AFTER, reasoning=AUTO).rstrip() == (
        "Thinking Auto; Auto from score 0.7; reasoning Hidden; of 10 chats 50% thought, of the 4 that Auto decided "
        "about 25%"
    )


@pytest.mark.parametrize(
    ("scrapes", "says"),
    [
        ([], "shares are not measured"),
        ([BEFORE], "shares are not measured"),
        ([a_scrape(0), a_scrape(10)], "shares are not measured"),
        ([BEFORE, Scrape(10, BEFORE.groups)], "no chat came"),
    ],
    ids=["no pod answers", "one look", "workers of before", "quiet"],
)
def test_what_is_not_known_is_no_zero(scrapes: list[Scrape], says: str) -> None:
    assert shown(*scrapes).rstrip() == (
        f"Thinking as the chat template has it; Auto from score 0.5; reasoning Visible; {says}"
    )


def test_where_auto_decided_nothing_only_all_chats_are_told() -> None:
    scrapes = [a_scrape(0, enabled_request=0, disabled_auto=3), a_scrape(10, enabled_request=2, disabled_auto=3)]
    assert shown(*scrapes).rstrip().endswith("of 2 chats 100% thought")


def test_a_spec_that_cannot_be_read_shows_nothing_of_thinking() -> None:
    assert seen(BEFORE, AFTER, reasoning={"autoThreshold": 7}) is None
