"""Passes, lists and polls: what is run, when again, and what the probe and the metrics make of it."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from glm_operator.errors import Denied, Unavailable
from glm_operator.handlers.loop import JITTER, Loop
from glm_operator.handlers.probes import build_app
from glm_operator.handlers.queue import Key, Queue, Urgency
from glm_operator.reconcile.reconciler import Outcome
from glm_operator.settings import OperatorSettings
from unit.operator.operator_builders import a_body

KEY = Key("models", "chat")


class FakeWatch:
    """A watch that last heard something so long ago, and fails as it is told."""

    def __init__(self, kind: str = "Pod", *, age_s: float = 0.0, restarts: int = 0) -> None:
        self.kind = kind
        self.restarts = restarts
        self.age = age_s
        self.has_listed = asyncio.Event()
        self.error: Exception | None = None

    def age_s(self) -> float:
        return self.age

    async def run(self) -> None:
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()


class Delays(Queue):
    """A queue that notes what is put off, and for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[float, Urgency]] = []

    def add_later(self, key: Key, delay_s: float, urgency: Urgency = Urgency.EVENT) -> None:
        self.noted.append((delay_s, urgency))
        super().add_later(key, delay_s, urgency)


def a_loop(
    *results: Outcome | Exception,
    bodies: list[dict[str, Any]] | None = None,
    polled: tuple[Key, ...] = (),
    watches: tuple[FakeWatch, ...] = (),
    queue: Queue | None = None,
    **settings: Any,
) -> Loop:
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

    async def poll() -> tuple[Key, ...]:
        return polled

    loop_settings = OperatorSettings(**settings)
    return Loop(loop_settings, reconcile, deployments, poll, watches, queue=queue)


async def nobody() -> tuple[Key, ...]:
    return ()


async def run_pass(loop: Loop) -> None:
    loop.queue.add(KEY, Urgency.EDIT)
    await loop.pass_once(await loop.queue.take())


async def turn(loop: Loop) -> None:
    """Let the loop run for a moment."""
    task = asyncio.create_task(loop.run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def counted(loop: Loop, name: str, outcome: str) -> float:
    return loop.telemetry.registry.get_sample_value(f"glm_operator_reconcile_{name}", {"outcome": outcome}) or 0.0


async def test_a_list_makes_everything_due() -> None:
    loop = a_loop()
    await loop.list_once()
    assert await loop.queue.take() == KEY


async def test_each_namespace_is_listed_by_itself() -> None:
    loop = a_loop(namespaces=("one", "two"), bodies=[])
    await loop.list_once()
    assert len(loop.queue) == 0


class Namespaces:
    """Lists a deployment in each namespace, but for those that are closed."""

    def __init__(self, *closed: str) -> None:
        self.closed = set(closed)

    async def __call__(self, namespace: str | None) -> list[dict[str, Any]]:
        if namespace in self.closed:
            raise Denied(f"cannot list in {namespace}")
        return [a_body(namespace=namespace)]


def watching(namespaces: tuple[str, ...], cluster: Namespaces) -> Loop:
    async def reconcile(namespace: str, name: str) -> Outcome:
        return Outcome()

    return Loop(OperatorSettings(namespaces=namespaces), reconcile, cluster, nobody)


@pytest.mark.parametrize("closed", ["one", "two", "three"])
async def test_a_namespace_that_cannot_be_listed_holds_up_no_other(closed: str) -> None:
    loop = watching(("one", "two", "three"), Namespaces(closed))
    assert await loop.list_once()
    due = {(await loop.queue.take()).namespace for _ in range(len(loop.queue))}
    assert due == {"one", "two", "three"} - {closed}


async def test_one_namespace_that_can_be_listed_is_enough_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_operator.handlers.loop.WAIT_S", 0.0)
    loop = watching(("one", "two"), Namespaces("two"))
    async with asyncio.timeout(10):
        await loop.wait_until_served()
    assert (await loop.queue.take()).namespace == "one"


async def test_no_list_at_all_is_told() -> None:
    assert not await watching(("one", "two"), Namespaces("one", "two")).list_once()


async def test_a_namespace_is_told_of_when_it_closes_and_when_it_opens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cluster = Namespaces("two")
    loop = watching(("one", "two"), cluster)
    await loop.list_once()
    await loop.list_once()
    cluster.closed.clear()
    await loop.list_once()
    await loop.list_once()
    assert [record.getMessage() for record in caplog.records] == [
        "list of two: cannot list in two",
        "list of two: it can be listed again",
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


async def test_what_is_settled_is_looked_at_again_at_the_resync() -> None:
    queue = Delays()
    await run_pass(a_loop(Outcome(), queue=queue, resync_s=100.0))
    ((delay_s, urgency),) = queue.noted
    assert 90.0 <= delay_s <= 110.0
    assert urgency is Urgency.RESYNC


async def test_what_stands_still_is_looked_at_ever_more_rarely() -> None:
    queue = Delays()
    still, moved = Outcome(settled=False), Outcome(changed=True, settled=False)
    loop = a_loop(moved, still, still, still, still, moved, queue=queue, starting_resync_s=1.0, unsettled_resync_s=5.0)
    for _ in range(6):
        await run_pass(loop)
    delays_s = [delay_s for delay_s, _ in queue.noted]
    assert delays_s == pytest.approx([1.0, 2.0, 4.0, 5.0, 5.0, 1.0], rel=JITTER)


@pytest.mark.parametrize(("due_in_s", "least", "most"), [(-5.0, 0.0, 0.2), (9.0, 8.0, 9.2), (9e9, 500.0, 700.0)])
async def test_what_waits_for_a_time_is_looked_at_then(due_in_s: float, least: float, most: float) -> None:
    queue = Delays()
    due_at = datetime.now(UTC) + timedelta(seconds=due_in_s)
    await run_pass(a_loop(Outcome(due_at=due_at), queue=queue))
    assert least <= queue.noted[0][0] <= most


async def test_a_deployment_that_is_gone_is_looked_at_no_more() -> None:
    queue = Delays()
    await run_pass(a_loop(Outcome(exists=False), queue=queue))
    assert (queue.noted, len(queue)) == ([], 0)


async def test_what_workers_say_anew_makes_their_deployment_due() -> None:
    woken = asyncio.Event()

    class Woken(Queue):
        def add(self, key: Key, urgency: Urgency = Urgency.EVENT) -> None:
            woken.set()

    task = asyncio.create_task(a_loop(polled=(KEY,), poll_s=0.001, queue=Woken()).run())
    async with asyncio.timeout(10):
        await woken.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_queue_that_others_fill_is_the_one_that_is_emptied() -> None:
    queue = Queue()
    assert a_loop(queue=queue).queue is queue, "an empty one, too"


async def test_a_watch_that_ends_ends_the_loop() -> None:
    watch = FakeWatch()
    watch.error = KeyError("bug")
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup):
            await a_loop(watches=(watch,)).run()


async def test_a_pass_that_hangs_is_given_up() -> None:
    async def hang(namespace: str, name: str) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async def none(namespace: str | None) -> list[dict[str, Any]]:
        return []

    loop = Loop(OperatorSettings(pass_limit_s=0.01), hang, none, nobody)
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


async def test_the_probe_fails_when_the_event_loop_does_not_turn(now: list[float]) -> None:
    loop = a_loop(watches=(FakeWatch(),))
    now[0] = 90.0
    assert loop.is_alive
    now[0] = 90.1
    assert not loop.is_alive
    await run_pass(loop)
    assert not loop.is_alive, "a pass that ends does not hide a loop that hangs"
    await turn(loop)
    assert loop.is_alive


async def test_silence_is_that_of_the_watch_that_heard_something_last(now: list[float]) -> None:
    loop = a_loop(watches=(FakeWatch(age_s=500.0), FakeWatch(age_s=20.0)))
    now[0] = 1000.0
    assert loop.silence_s() == 20.0


async def test_a_server_that_is_away_fails_the_probe_only_after_ten_minutes(now: list[float]) -> None:
    watches = FakeWatch(), FakeWatch()
    loop = a_loop(watches=watches)
    for now[0], alive in ((0.0, True), (600.0, True), (601.0, False)):
        for watch in watches:
            watch.age = now[0]
        await turn(loop)
        assert loop.is_alive is alive


async def test_the_age_is_that_of_the_last_pass_that_ended_well(now: list[float]) -> None:
    loop = a_loop(Outcome(), Outcome(exists=False), Unavailable("503"), KeyError("bug"))
    for now[0] in (5.0, 7.0, 80.0, 100.0):
        await run_pass(loop)
    assert (loop.pass_age_s(), age_metric(loop)) == (93.0, 93.0)


async def test_nothing_to_do_counts_as_a_pass_while_watches_speak(now: list[float]) -> None:
    watch = FakeWatch()
    loop = a_loop(watches=(watch,))
    now[0] = 7.0
    await turn(loop)
    now[0], watch.age = 100.0, 100.0
    await turn(loop)
    assert age_metric(loop) == 93.0, "nothing is due, for nobody tells of it"


async def test_a_pass_that_is_due_and_does_not_end_lets_the_age_rise(now: list[float]) -> None:
    loop = a_loop(watches=(FakeWatch(),), queue=(queue := Queue()))
    queue.add(KEY)
    await queue.take()
    queue.add(KEY)
    now[0] = 50.0
    await turn(loop)
    assert age_metric(loop) == 50.0


async def test_the_age_of_a_kind_is_that_of_its_quietest_watch() -> None:
    watches = FakeWatch("Pod", age_s=3.0, restarts=1), FakeWatch("Pod", age_s=9.0, restarts=2), FakeWatch("Service")
    registry = a_loop(watches=watches).telemetry.registry
    assert registry.get_sample_value("glm_operator_watch_age_seconds", {"kind": "Pod"}) == 9.0
    assert registry.get_sample_value("glm_operator_watch_restarts_total", {"kind": "Pod"}) == 3.0
    assert registry.get_sample_value("glm_operator_watch_restarts_total", {"kind": "Service"}) == 0.0


async def test_the_probe_tells_of_the_last_pass_and_the_last_word_of_a_watch(now: list[float]) -> None:
    loop = a_loop(watches=(FakeWatch(age_s=5.0),))
    now[0] = 5.0
    await run_pass(loop)
    loop.queue.add(KEY)
    now[0] = 25.0
    async with TestClient(TestServer(build_app(loop))) as client, client.get("/livez") as answer:
        said = "last pass 20.0 s ago, last word of a watch 5.0 s ago, 1 waiting\n"
        assert (answer.status, await answer.text()) == (200, said)


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

    loop = Loop(OperatorSettings(), reconcile, deployments, nobody)
    await loop.wait_until_served()
    assert await loop.queue.take() == KEY


async def test_only_edits_are_acted_on_before_every_watch_has_listed() -> None:
    """Right after a start each pass would read all that is live for itself, and hold up whom somebody waits for."""
    acted_on: asyncio.Queue[str] = asyncio.Queue()

    async def reconcile(_: str, name: str) -> Outcome:
        acted_on.put_nowait(name)
        return Outcome()

    watch = FakeWatch()
    watch.run = asyncio.Event().wait  # type: ignore[method-assign, assignment]

    async def deployments(_: str | None) -> list[dict[str, Any]]:
        return []

    loop = Loop(OperatorSettings(concurrency=8), reconcile, deployments, nobody, [watch])
    running = asyncio.create_task(loop.run())
    loop.queue.add(Key("models", "known"), Urgency.RESYNC)
    loop.queue.add(Key("models", "edited"), Urgency.EDIT)
    async with asyncio.timeout(30):
        assert await acted_on.get() == "edited"
        watch.has_listed.set()
        assert await acted_on.get() == "known"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_deployment_that_was_edited_while_the_operator_was_down_comes_first() -> None:
    edited = {
        "metadata": {"namespace": "models", "name": "edited", "generation": 2},
        "status": {"observedGeneration": 1},
    }
    known = {"metadata": {"namespace": "models", "name": "a", "generation": 2}, "status": {"observedGeneration": 2}}

    async def deployments(_: str | None) -> list[dict[str, Any]]:
        return [known, edited]

    async def reconcile(_: str, name: str) -> Outcome:
        raise AssertionError(name)

    loop = Loop(OperatorSettings(), reconcile, deployments, nobody)
    await loop.list_once()
    assert [await loop.queue.take(), await loop.queue.take()] == [Key("models", "edited"), Key("models", "a")]
