"""`glm status`: what is read, what is shown, and what is said where pods may not be asked."""

import asyncio
from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from glm_operator.cli import app
from glm_operator.cli.status import command
from glm_operator.cli.status.command import OLD, Look, follow
from glm_operator.cli.status.drawing import draw
from glm_operator.errors import Denied, KubeError, Missing, Unavailable
from unit.operator.cli.status.test_samples import a_text
from unit.operator.operator_builders import a_body

STATUS = {
    "ready": "1/2",
    "groups": [{"name": "chat-g0", "state": "Ready"}, {"name": "chat-g1", "state": "Starting"}],
    "latency": {"ttftP95": "420ms"},
    "slo": {"classes": [{"name": "chat", "met": False, "ttft": "620ms", "attainment": "91%", "budgetLeft": "-4%"}]},
    "scaling": {
        "mode": "Active",
        "desired": 4,
        "current": 2,
        "starting": 1,
        "limitedBy": "Max",
        "message": "5.1 groups of [work]",
        "source": "Prometheus",
        "signals": [
            {"name": "needed, groups", "state": "Value", "value": "5.1", "measuredAt": "2026-01-01T00:00:00Z"},
            {"name": "KV use, %", "state": "Unknown"},
        ],
        "history": [{"time": "2026-01-01T00:00:00Z", "from": 1, "to": 2, "reason": "Demand", "message": "2.4 [x]"}],
    },
    "gateway": {"cutRequests": 3},
    "conditions": [
        {"type": "Ready", "status": "False", "reason": "GroupsStarting", "message": "1/2 groups are ready"},
        {"type": "SLOMet", "status": "False", "reason": "SLOMissed", "message": "class chat: slow"},
    ],
}


class FakeKube:
    """A deployment, and pods that answer, are not there, or may not be asked."""

    def __init__(self, *answers: str | KubeError) -> None:
        self._answers = dict(zip(("chat-g0-0", "chat-g1-0"), answers, strict=False))
        self.num_asked = 0

    async def wanted(self, namespace: str, name: str) -> dict[str, Any]:
        slo = {"classes": [{"name": "chat", "ttft": "500ms"}]}
        return {**a_body(slo=slo, replicas=2), "status": STATUS}

    async def pod_metrics(self, namespace: str, pod: str, *, timeout_s: float) -> str:
        assert timeout_s <= command.READ_S
        self.num_asked += 1
        answer = self._answers.get(pod, Unavailable("no such pod"))
        if isinstance(answer, KubeError):
            raise answer
        return answer


def drawn(view: Any) -> str:
    return rendered(draw(view))


def rendered(picture: RenderableType, width: int = 160) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(picture)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


async def test_what_groups_measure_now_is_shown_over_the_status() -> None:
    view = await Look(FakeKube(a_text("g0", fast=3, running=7)), "models", "chat").take()
    first, second = view.groups
    assert (first.running, first.kv_usage, second.running) == (7, 0.25, None)
    assert view.note == (
        "Groups as they are now; latencies are those of the status: written at most once a minute, "
        "and a number anew only when it differs by more than 10 %. No answer from chat-g1."
    )
    assert (view.desired, view.limited_by, view.current) == (4, "Max", 2)


async def test_everything_that_is_known_is_drawn() -> None:
    text = drawn(await Look(FakeKube(a_text("g0", fast=3, running=7)), "models", "chat").take())
    for part in (
        "models/chat  1/2 groups ready",
        "25% ",
        "ttft P95",
        "620ms",
        "500ms",
        "91%",
        "-4%",
        "Scaling Active: 2 groups, wants 4, limited by Max (from Prometheus): 5.1 groups of [work]",
        "needed, groups",
        "1 -> 2",
        "2.4 [x]",
        "SLOMissed",
        "Requests that the end of a drain has cut: 3",
    ):
        assert part in text, part


async def test_without_the_right_to_ask_pods_the_status_is_shown_with_its_age() -> None:
    kube = FakeKube(Denied("pods is forbidden: cannot get pods/proxy"))
    look = Look(kube, "models", "chat")
    for _ in range(3):
        view = await look.take()
    assert view.note.startswith("These numbers are those of the status: written at most once a minute")
    assert "cannot get pods/proxy" in view.note
    assert kube.num_asked == 2, "who may not is not asked again"
    assert view.latencies[0].latency == "620ms"


async def test_a_deployment_without_any_status_yet_is_shown() -> None:
    class Fresh(FakeKube):
        async def wanted(self, namespace: str, name: str) -> dict[str, Any]:
            return a_body()

    text = drawn(await Look(Fresh(), "models", "chat").take())
    assert "0/0 groups ready" in text
    assert "Scaling Disabled: 1 groups" in text
    assert "cut" not in text, "what nobody has counted is no zero"


class Faltering(FakeKube):
    """An API server whose answers are these, one after the other; the last one stays."""

    def __init__(self, *turns: KubeError | None) -> None:
        super().__init__(a_text("g0", fast=3, running=7), a_text("g1", fast=1))
        self._turns = list(turns)

    async def wanted(self, namespace: str, name: str) -> dict[str, Any]:
        turn = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
        if turn is not None:
            raise turn
        return await super().wanted(namespace, name)


GONE = Missing("there is no GLMDeployment chat in namespace models")
FORBIDDEN = Denied("glmdeployments is forbidden: cannot get")
AWAY = Unavailable("get /apis: ClientConnectorError connection refused")
BUSY = Unavailable("get /apis: too many requests (status 429)")


async def followed(kube: FakeKube) -> tuple[list[str], KubeError]:
    """Return what a live view shows, look after look, and what ends it."""
    shown: list[str] = []
    with pytest.raises(KubeError) as caught:
        async with asyncio.timeout(10):
            await follow(Look(kube, "models", "chat"), 0.001, lambda picture: shown.append(rendered(picture)))
    return shown, caught.value


@pytest.mark.parametrize("cause", [AWAY, BUSY])
async def test_a_live_view_outlives_an_api_server_that_fails_and_says_how_old_it_is(cause: KubeError) -> None:
    shown, end = await followed(Faltering(None, cause, cause, None, GONE))
    assert end is GONE
    fresh, first, second, again, *_ = shown
    for old in (first, second):
        assert f"These numbers are 0 s old: {cause}" in old
        assert "models/chat  1/2 groups ready" in old
    assert "s old" not in fresh
    assert "s old" not in again


@pytest.mark.parametrize("end", [GONE, FORBIDDEN])
async def test_a_live_view_ends_when_the_deployment_stays_gone_or_forbidden(end: KubeError) -> None:
    shown, caught = await followed(Faltering(None, end))
    assert caught is end
    assert len(shown) == command.FINAL_LOOKS


async def test_a_server_that_starts_and_denies_everything_for_a_moment_ends_no_view() -> None:
    shown, end = await followed(Faltering(None, FORBIDDEN, GONE, None, AWAY, FORBIDDEN, None, GONE))
    assert end is GONE
    assert sum("s old" not in each for each in shown) == 3


async def test_a_live_view_that_never_saw_the_deployment_ends_at_once() -> None:
    shown, end = await followed(Faltering(AWAY))
    assert (shown, end) == ([], AWAY)


async def test_an_answer_that_does_not_come_is_told_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Faltering):
        async def wanted(self, namespace: str, name: str) -> dict[str, Any]:
            if len(self._turns) == 1:
                await asyncio.Event().wait()
            return await super().wanted(namespace, name)

    monkeypatch.setattr(command, "LATE_S", 0.01)
    shown: list[str] = []
    told = asyncio.Event()

    def show(picture: RenderableType) -> None:
        shown.append(rendered(picture))
        if "the API server has not answered yet" in shown[-1]:
            told.set()

    view = asyncio.create_task(follow(Look(Hanging(None, None), "models", "chat"), 0.001, show))
    async with asyncio.timeout(10):
        await told.wait()
    view.cancel()
    with pytest.raises(asyncio.CancelledError):
        await view
    assert "These numbers are 0 s old: the API server has not answered yet" in shown[-1]


async def test_pods_that_answered_once_are_asked_again_after_a_denial() -> None:
    class Restarting(FakeKube):
        async def pod_metrics(self, namespace: str, pod: str, *, timeout_s: float) -> str:
            text = await super().pod_metrics(namespace, pod, timeout_s=timeout_s)
            if 2 < self.num_asked <= 4:
                raise Denied("not yet")
            return text

    look = Look(Restarting(a_text("g0", fast=3), a_text("g1", fast=3)), "models", "chat")
    notes = [(await look.take()).note for _ in range(3)]
    assert [OLD in note for note in notes] == [False, True, False]


async def test_a_gauge_that_is_no_number_is_shown_as_unknown() -> None:
    text = a_text("g0", fast=3).replace('rank="0"} 0.25', 'rank="0"} NaN').replace('group="g0"} 2', 'group="g0"} +Inf')
    view = await Look(FakeKube(text, a_text("g1", fast=1)), "models", "chat").take()
    first, second = view.groups
    assert (first.running, first.kv_usage) == (None, None)
    assert (second.running, second.kv_usage) == (2, 0.25)
    assert "g0" in drawn(view)


@pytest.mark.parametrize(
    ("is_available", "reason", "shown"),
    [
        ("True", "NoTraffic", True),
        ("True", "OlderWorkers", False),
        ("False", "NoSeries", False),
        ("Unknown", "MetricsMissing", False),
    ],
)
async def test_a_latency_that_is_not_known_is_called_no_traffic_only_where_it_is_measured(
    *, is_available: str, reason: str, shown: bool
) -> None:
    class Silent(FakeKube):
        async def wanted(self, namespace: str, name: str) -> dict[str, Any]:
            available = {"type": "MetricsAvailable", "status": is_available, "reason": "Some", "message": ""}
            met = {"type": "SLOMet", "status": "Unknown", "reason": reason, "message": ""}
            body = await super().wanted(namespace, name)
            return {**body, "status": {"conditions": [available, met]}}

    text = drawn(await Look(Silent(), "models", "chat").take())
    assert "ttft P95" in text
    assert ("no traffic" in text) is shown


async def test_json_has_everything() -> None:
    found = (await Look(FakeKube(), "models", "chat").take()).as_json()
    assert found["groups"][0]["name"] == "chat-g0"
    assert found["latencies"][0] == {
        "slo_class": "chat",
        "signal": "ttft",
        "percentile": 95,
        "latency": "620ms",
        "promised": "500ms",
        "met": False,
    }
    assert found["signals"][0]["age_s"] > 0


@pytest.mark.parametrize("arguments", [["status", "chat", "-o", "yaml"]])
def test_an_output_that_is_not_known_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
