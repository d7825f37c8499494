"""Passes and resync: what is run, when again, and what the probe and the metrics make of it."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from glm_operator.errors import Denied, Unavailable
from glm_operator.handlers.loop import Loop
from glm_operator.handlers.probes import build_app
from glm_operator.handlers.queue import Key
from glm_operator.reconcile.reconciler import Outcome
from glm_operator.settings import OperatorSettings
from unit.operator.operator_builders import a_body

KEY = Key("models", "chat")


def a_loop(*results: Outcome | Exception, bodies: list[dict[str, Any]] | None = None, **settings: Any) -> Loop:
    """Return a loop whose passes end as given, one after another, the last for ever."""
    left = list(results or [Outcome()])

    async def reconcile(namespace: str, name: str) -> Outcome:
        assert (namespace, name) == ("models", "chat")
        result = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(result, Exception):
            raise result
        return result

    async def deployments(namespace: str | None) -> list[dict[str, Any]]:
        assert namespace is None or namespace in loop_settings.namespaces
        return [a_body()] if bodies is None else bodies

    loop_settings = OperatorSettings(**settings)
    return Loop(loop_settings, reconcile, deployments)


async def run_pass(loop: Loop) -> None:
    loop.queue.add(KEY, urgent=True)
    await loop.pass_once(await loop.queue.take())


def counted(loop: Loop, name: str, outcome: str) -> float:
    return loop.telemetry.registry.get_sample_value(f"glm_operator_reconcile_{name}", {"outcome": outcome}) or 0.0


async def test_a_resync_makes_everything_due() -> None:
    loop = a_loop()
    await loop.resync_once()
    assert await loop.queue.take() == KEY


async def test_each_namespace_is_listed_by_itself() -> None:
    loop = a_loop(namespaces=("one", "two"), bodies=[])
    await loop.resync_once()
    assert len(loop.queue) == 0


class Namespaces:
    """Lists a deployment in each namespace, but for those that are closed."""

    def __init__(self, *closed: str) -> None:
        self.closed = set(closed)
        self.found = True

    async def __call__(self, namespace: str | None) -> list[dict[str, Any]]:
        if namespace in self.closed:
            raise Denied(f"cannot list in {namespace}")
        return [a_body(namespace=namespace)] if self.found else []


def watching(namespaces: tuple[str, ...], cluster: Namespaces) -> Loop:
    async def reconcile(namespace: str, name: str) -> Outcome:
        return Outcome()

    return Loop(OperatorSettings(namespaces=namespaces), reconcile, cluster)


@pytest.mark.parametrize("closed", ["one", "two", "three"])
async def test_a_namespace_that_cannot_be_listed_holds_up_no_other(closed: str) -> None:
    loop = watching(("one", "two", "three"), Namespaces(closed))
    assert await loop.resync_once()
    due = {(await loop.queue.take()).namespace for _ in range(len(loop.queue))}
    assert due == {"one", "two", "three"} - {closed}


async def test_one_namespace_that_can_be_listed_is_enough_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_operator.handlers.loop.WAIT_S", 0.0)
    loop = watching(("one", "two"), Namespaces("two"))
    async with asyncio.timeout(10):
        await loop.wait_until_served()
    assert (await loop.queue.take()).namespace == "one"


async def test_no_list_at_all_is_no_resync() -> None:
    assert not await watching(("one", "two"), Namespaces("one", "two")).resync_once()


async def test_a_namespace_is_told_of_when_it_closes_and_when_it_opens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster = Namespaces("two")
    loop = watching(("one", "two"), cluster)
    await loop.resync_once()
    await loop.resync_once()
    cluster.closed.clear()
    await loop.resync_once()
    await loop.resync_once()
    assert [record.getMessage() for record in caplog.records] == [
        "resync of two: cannot list in two",
        "resync of two: it can be listed again",
    ]


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Outcome(), "unchanged"),
        (Outcome(changed=True, settled=False), "changed"),
        (Outcome(exists=False), "gone"),
        (Unavailable("503"), "unavailable"),
        (KeyError("bug"), "error"),
    ],
)
async def test_every_pass_is_counted_by_how_it_ended(result: Outcome | Exception, outcome: str) -> None:
    loop = a_loop(result)
    await run_pass(loop)
    assert counted(loop, "duration_seconds_count", outcome) == 1.0


async def test_every_series_exists_from_the_start() -> None:
    loop = a_loop()
    assert loop.telemetry.registry.get_sample_value(
        "glm_operator_reconcile_errors_total", {"outcome": "error"}
    ) == pytest.approx(0.0)


async def test_a_server_that_is_down_is_a_warning_and_a_bug_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    loop = a_loop(Unavailable("API server: get /x: timeout"), KeyError("bug"))
    await run_pass(loop)
    await run_pass(loop)
    first, second = caplog.records
    assert (first.levelno, first.exc_info) == (logging.WARNING, None)
    assert (second.levelno, second.exc_info is not None) == (logging.ERROR, True)


async def test_what_failed_is_tried_again_by_itself() -> None:
    loop = a_loop(Unavailable("503"), Outcome())
    await run_pass(loop)
    async with asyncio.timeout(30):
        assert await loop.queue.take() == KEY


async def test_what_starts_is_looked_at_again_soon() -> None:
    loop = a_loop(Outcome(changed=True, settled=False), starting_resync_s=0.01)
    await run_pass(loop)
    async with asyncio.timeout(10):
        assert await loop.queue.take() == KEY


async def test_what_is_settled_waits_for_an_event_or_the_resync() -> None:
    loop = a_loop(Outcome(), starting_resync_s=0.001)
    await run_pass(loop)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await loop.queue.take()


async def test_a_pass_that_hangs_is_given_up() -> None:
    async def hang(namespace: str, name: str) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async def none(namespace: str | None) -> list[dict[str, Any]]:
        return []

    loop = Loop(OperatorSettings(pass_limit_s=0.01), hang, none)
    await run_pass(loop)
    assert counted(loop, "errors_total", "unavailable") == 1.0


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loop's clock, to be set."""
    clock = [0.0]
    monkeypatch.setattr("glm_operator.handlers.loop.time.monotonic", lambda: clock[0])
    return clock


def age_metric(loop: Loop) -> float | None:
    return loop.telemetry.registry.get_sample_value("glm_operator_last_pass_age_seconds")


async def test_the_probe_fails_when_no_resync_ended_for_three_of_them(now: list[float]) -> None:
    loop = a_loop(resync_s=10.0)
    now[0] = 30.0
    assert loop.is_alive
    now[0] = 30.1
    assert not loop.is_alive
    await run_pass(loop)
    assert not loop.is_alive, "passes that end do not hide a resync that hangs"
    await loop.resync_once()
    assert loop.is_alive


async def test_the_age_is_that_of_the_last_pass_that_ended_well(now: list[float]) -> None:
    loop = a_loop(Outcome(), Outcome(exists=False), Unavailable("503"), KeyError("bug"))
    for now[0] in (5.0, 7.0, 80.0, 100.0):
        await loop.resync_once()
        await run_pass(loop)
    assert (loop.pass_age_s(), age_metric(loop)) == (93.0, 93.0)


async def test_a_resync_that_finds_nothing_to_do_counts_as_a_pass(now: list[float]) -> None:
    cluster = Namespaces()
    loop = watching(("one", "two"), cluster)
    cluster.found = False
    now[0] = 5.0
    await loop.resync_once()
    cluster.closed = {"one"}
    now[0] = 7.0
    await loop.resync_once()
    cluster.closed = {"one", "two"}
    now[0] = 50.0
    await loop.resync_once()
    cluster.closed.clear()
    cluster.found = True
    now[0] = 100.0
    await loop.resync_once()
    assert age_metric(loop) == 93.0


async def test_the_probe_tells_of_the_last_pass_and_the_last_list(now: list[float]) -> None:
    loop = a_loop()
    now[0] = 5.0
    await run_pass(loop)
    now[0] = 20.0
    await loop.resync_once()
    now[0] = 25.0
    async with TestClient(TestServer(build_app(loop))) as client, client.get("/livez") as answer:
        assert (answer.status, await answer.text()) == (200, "last pass 20.0 s ago, last list 5.0 s ago, 1 waiting\n")


async def test_a_server_that_is_away_fails_the_probe_only_after_twenty_resyncs(now: list[float]) -> None:
    loop = watching(("one",), Namespaces("one"))  # 30 s a resync
    for now[0] in (0.0, 60.0, 300.0, 600.0):
        await loop.resync_once()
        assert loop.is_alive
    now[0] = 601.0
    await loop.resync_once()
    assert not loop.is_alive


async def test_it_waits_until_the_kind_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_operator.handlers.loop.WAIT_S", 0.0)
    answers: list[Exception | list[dict[str, Any]]] = [Unavailable("no such kind"), [a_body()]]

    async def deployments(namespace: str | None) -> list[dict[str, Any]]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def reconcile(namespace: str, name: str) -> Outcome:
        return Outcome()

    loop = Loop(OperatorSettings(), reconcile, deployments)
    await loop.wait_until_served()
    assert await loop.queue.take() == KEY
