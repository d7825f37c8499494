"""Every query of the dashboards on a real Prometheus that scraped real workers and a real operator, in four states.

A state is right when no query fails, nothing is empty that is due, and no value is NaN, infinite or out of its range.
"""

import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contract.dashboards import boards, with_variables
from integration.observed_world import World, an_observed_world

STATES = ("idle", "load", "one pod dead", "scaled down to min")
WITH_TRAFFIC = ("load", "one pod dead")
STEP_S = 1.0
pytestmark = pytest.mark.long  # tests/contract/test_dashboards.py has what needs no running programs

SEEN_S = 6.0  # how long Prometheus looks at each state
OF_OPERATOR = "glm_operator_watch_age_seconds"
"""What Prometheus has while its last look at the operator was answered in time: on a busy machine one may not be."""

WINDOWS = {"__rate_interval": "5s", "__range": "2m", "__interval": "1s", "__interval_ms": "1000"}


def silent_for_good(line: Any) -> bool:
    """Whether a line has nothing to say in all four states, as nothing of the kind happens in them."""
    return any(
        word in line.expr
        for word in (
            *("watch_restarts", 'state=~"Unknown|Stale"', "glm_autoscaler_query_duration"),
            # a gateway that holds nobody, without store, limits and audit log
            *("gateway_hold", "gateway_store", "counted_here", "limit_refusals", "audit_lines"),
        )
    )


async def faults(world: World, state: str, began_s: float, said: set[str]) -> list[str]:
    """Return what is wrong with the answers to all queries over the time of a state. said: lines that had an answer."""
    found = []
    ended_s = time.time()
    for board in boards():
        for panel in board.panels():
            for line in panel.lines:
                where = f"{state}: {board.slug}/{panel.title}: {line.expr}"
                expr = with_variables(line.expr, **WINDOWS)
                if panel.kind in ("number", "bars"):
                    answer = await world.api("query", query=expr, time=ended_s)
                else:
                    answer = await world.api("query_range", query=expr, start=began_s, end=ended_s, step=STEP_S)
                if answer["status"] != "success" or answer.get("warnings"):
                    found.append(f"{where}: {answer.get('error') or answer['warnings']}")
                    continue
                series = answer["data"]["result"]
                values = [float(value) for each in series for _, value in each.get("values") or [each["value"]]]
                if values:
                    said.add(f"{board.slug}/{panel.title}: {line.legend}")
                elif line.due == "always" or (line.due == "traffic" and state in WITH_TRAFFIC):
                    found.append(f"{where}: nothing, where data is due")
                if wrong := [value for value in values if not math.isfinite(value)]:
                    found.append(f"{where}: {wrong[0]}")
                elif wrong := [value for value in values if not line.low - 1e-9 <= value <= line.high + 1e-9]:
                    found.append(f"{where}: {wrong[0]} is not within {line.low} and {line.high}")
    return found


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    async with an_observed_world(tmp_path) as world:
        yield world


class Look:
    """What was wrong with the answers of all states that were looked at, and which lines had one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wrong: list[str] = []
        self.said: set[str] = set()

    async def at(self, state: str) -> None:
        began_s = time.time()
        await self._world.pass_time(SEEN_S)
        await self._world.until_answered(OF_OPERATOR)
        self.wrong.extend(await faults(self._world, state, began_s, self.said))


@pytest.fixture
async def look(world: World) -> Look:
    return Look(world)


async def test_every_query_is_answered_at_rest_and_under_load(world: World, look: Look) -> None:
    await world.until("promises", lambda: world.operator.is_ready("chat"))
    await look.at("idle")
    world.load.set(2)
    await world.until("answers", lambda: world.load.answered > 5)
    await look.at("load")
    assert look.wrong == [], "\n".join(look.wrong)
    assert await broken_rules(world) == {}


async def test_every_query_is_answered_in_every_state(world: World, look: Look) -> None:
    await world.until("promises", lambda: world.operator.is_ready("chat"))
    await look.at("idle")

    world.load.set(12)
    await world.until("the operator wants a second group", lambda: world.spec_groups == 2)
    await world.until("both serve", lambda: world.serving == 2)
    await world.until("answers", lambda: world.load.answered > 20)
    await look.at("load")
    annotations = await world.query(
        'sum by (reason, direction) (increase(glm_autoscaler_decisions_total{direction="up"}[2m])) > 0'
    )
    assert annotations, "the decision to scale up is an annotation"

    await world.kill("chat-g1")
    await look.at("one pod dead")

    world.load.set(0)
    await world.revive()
    await world.until("the operator wants one group", lambda: world.spec_groups == 1)
    await world.until("one serves", lambda: world.serving == 1)
    await world.pass_time(SEEN_S)  # what ended is out of the windows of rates
    await look.at("scaled down to min")

    assert look.wrong == [], "\n".join(look.wrong)
    lines = {
        f"{board.slug}/{panel.title}: {line.legend}": line
        for board in boards()
        for panel in board.panels()
        for line in panel.lines
    }
    never = {name for name, line in lines.items() if name not in look.said and not silent_for_good(line)}
    assert never == set(), "these had no answer in any state"
    assert await broken_rules(world) == {}


async def broken_rules(world: World) -> dict[str, str]:
    rules = (await world.api("rules"))["data"]["groups"]
    return {rule["name"]: rule["lastError"] for group in rules for rule in group["rules"] if rule["health"] != "ok"}
