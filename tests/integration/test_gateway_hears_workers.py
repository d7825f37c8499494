"""A gateway's ear at a worker's mouth: the roster of the one reads the management port of the other."""

import asyncio
import logging
from types import SimpleNamespace
from typing import cast

import pytest

from glm_gateway.groups.directory import Directory
from glm_gateway.groups.found import Found
from glm_gateway.groups.load import Pace
from glm_gateway.groups.roster import Roster
from glm_gateway.models.model import Model
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.management.health import ManagementServer, Role
from glm_worker.supervisor.management.load import Line, LoadBoard
from integration.free_ports import free_port
from integration.test_gateway_groups import DEADLINE_S, group_of, until


async def test_a_gateway_hears_a_worker_from_its_first_word_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    line = Line(ready=False, leaving=False, incarnation="i-1")
    watched: list[bool] = []
    board = LoadBoard(lambda: line, watched.append)
    settings = WorkerSettings(model="builtin://glm-nano", host="127.0.0.1", management_port=free_port())
    management = ManagementServer(settings, cast(Role, SimpleNamespace(load=board)))
    serving = asyncio.create_task(management.serve())
    model = Model("chat", Directory())
    roster = Roster(model, pace=Pace(first_s=0.01, last_s=0.05))
    try:
        roster.take([Found(name="g0", host="127.0.0.1", port=1, management_port=settings.management_port)])
        await until(lambda: not group_of(model).takes_requests)
        assert model.served_as("g0") == "chat", "as long as it does not say"
        heard = {"in_flight_tokens": 12, "max_running": 5, "start_s": 9.5, "model": "chat-before"}
        line = Line(ready=True, leaving=False, incarnation="i-1", **heard)
        await until(lambda: group_of(model).takes_requests)
        assert model.router.book.account("g0").others_held == 12
        assert model.served_as("g0") == "chat-before"
        assert (model._max_running["g0"], roster.start_s) == (5, 9.5)
        line = Line(ready=False, leaving=True, incarnation="i-1")
        await until(lambda: group_of(model).is_leaving)
        caplog.set_level(logging.ERROR)
        management.stop()
        async with asyncio.timeout(DEADLINE_S):
            await serving
        await until(lambda: watched == [True, False])
        assert group_of(model).is_leaving, "its last word"
        assert caplog.records == [], "the stream has ended as HTTP ends"
    finally:
        await roster.close()
        management.stop()
        await serving
