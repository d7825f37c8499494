"""The gateway of local mode, the real one, before workers that pretend: it is the address, and leaves no process."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner, Result

from glm_operator.cli import app
from glm_operator.cluster.metrics.scrape import Scraper
from glm_operator.cluster.metrics.sources import Sources
from glm_operator.local import controller, processes, scaling
from glm_operator.local.control import Controller
from glm_operator.local.gateway.process import process_of, url
from glm_operator.local.management import Management
from glm_operator.local.state import ControllerRecord, DeploymentState, GatewayRecord, StateFolder
from integration.local_world import stop_all
from integration.no_tls import NO_TLS
from integration.pauses import Pauses

PROGRAM = [sys.executable, str(Path(__file__).with_name("pretend_worker.py"))]
DEADLINE_S = 60.0
OPEN: dict[str, Any] = {"access": {"auth": "None"}}


@dataclass
class Local:
    """One user's local mode."""

    state_folder: StateFolder
    files: Path
    people: ThreadPoolExecutor

    def glm(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 0, result.stderr
        return result

    def up(self, name: str = "nano", **spec: Any) -> Result:
        result = self.try_up(name, **spec)
        assert result.exit_code == 0, result.stderr
        return result

    def try_up(self, name: str = "nano", **spec: Any) -> Result:
        body = {
            "apiVersion": "glm-operator.io/v1alpha1",
            "kind": "GLMDeployment",
            "metadata": {"name": name, "labels": {"name": name}},
            "spec": {
                "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
                "hardware": {"device": "cpu"},
                **spec,
            },
        }
        file = self.files / f"{name}.json"
        file.write_text(json.dumps(body))
        return CliRunner().invoke(app, ["local", "up", "-f", str(file)])

    def key(self, name: str) -> str:
        return self.glm("keys", "create", name, "--local").stdout.strip()

    @property
    def state(self) -> DeploymentState:
        return self.state_folder.read("nano")

    @property
    def gateway(self) -> GatewayRecord:
        assert self.state.gateway is not None
        return self.state.gateway

    def ask(self, num_words: int, key: str = "none", prompt: str = "p", model: str = "glm-nano") -> "Asked":
        """Begin to read an answer."""
        asked = Asked()
        body = {"model": model, "prompt": prompt, "max_tokens": num_words, "stream": True}
        asked.done = self.people.submit(asked.read, f"{url(self.gateway)}/completions", body, key)
        return asked


class Asked:
    """An answer that is being read. words: so far, the first is the name of the group."""

    def __init__(self) -> None:
        self.status = 0
        self.body = ""
        self.words: list[str] = []
        self.done: Future[None] = Future()

    def read(self, where: str, body: dict[str, Any], key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.stream("POST", where, json=body, headers=headers, timeout=DEADLINE_S, verify=NO_TLS) as response:
            self.status = response.status_code
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    self.words.append(json.loads(line.removeprefix("data: "))["choices"][0]["text"].strip())
                elif not line.startswith(("data:", ":")):
                    self.body += line

    def begun(self) -> "Asked":
        until(lambda: bool(self.words))
        return self

    def all_words(self) -> list[str]:
        self.done.result(DEADLINE_S)
        assert self.status == 200, self.body
        return self.words


def until(condition: Callable[[], bool]) -> None:
    deadline, pauses = time.monotonic() + DEADLINE_S, Pauses()
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        pauses.pause()


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(sys.modules["glm_operator.cli.local"], "worker_program", lambda: PROGRAM)
    folder = StateFolder.of_user()
    with ThreadPoolExecutor(16) as people:
        try:
            yield Local(folder, tmp_path, people)
        finally:
            stop_all(folder)


def test_the_gateway_is_the_address_and_asks_for_a_key_that_was_made_here(local: Local) -> None:
    told = local.up(replicas=2)
    assert told.stdout.splitlines() == [f"nano serves at {url(local.gateway)}"]
    assert "glm keys create NAME --local" in told.stderr
    refused = local.ask(1)
    refused.done.result(DEADLINE_S)
    assert (refused.status, "invalid_api_key" in refused.body) == (401, True)

    key = local.key("me")
    until(lambda: httpx.get(f"{url(local.gateway)}/models", headers={"x-api-key": key}, verify=NO_TLS).is_success)
    assert {local.ask(2, key).all_words()[0] for _ in range(8)} <= {"nano-g0", "nano-g1"}
    assert "me" in local.glm("keys", "list", "--local").stdout
    assert "glm keys create" not in local.up(replicas=2).stderr

    line, *_ = local.glm("local", "status").stdout.splitlines()
    assert line == f"nano serves at {url(local.gateway)}: 0 requests run, 0 wait for a group, 2 of 2 groups ready"
    rows = json.loads(local.glm("local", "status", "-o", "json").stdout)
    assert [row.get("gateway") or row["group"] for row in rows] == ["nano-gateway", "nano-g0", "nano-g1"]
    assert "model glm-nano is served" in local.glm("local", "logs", "gateway").stdout
    assert "nano-gateway | " in local.glm("local", "logs").stdout
    assert (local.state_folder.root / "nano/state.json").stat().st_mode & 0o777 == 0o600

    token = local.gateway.token
    assert "nano stopped: gateway, 2 pods, no process left" in local.glm("local", "down").stdout
    assert processes.members(token) == []
    assert "me" in local.glm("keys", "list", "--local").stdout, "keys outlive what runs"


def test_an_edit_reaches_a_gateway_that_runs_and_only_what_it_cannot_take_over_replaces_it(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD_S", "0.05")
    local.up(**OPEN)
    first, pods = local.gateway, local.state.pods
    local.up(**OPEN, gateway={"names": [{"name": "chat", "arms": [{"to": "glm-nano"}]}]})
    models = httpx.get(f"{url(first)}/models", verify=NO_TLS).json()["data"]
    assert {model["id"] for model in models} == {"glm-nano", "chat"}, "as soon as `up` returns"
    assert process_of(local.gateway) == process_of(first)

    asked = local.ask(30).begun()
    local.up(**OPEN, gateway={"usage": {}})
    assert asked.done.done(), "it is waited for"
    assert asked.all_words() == ["nano-g0", *map(str, range(1, 30))]
    assert process_of(local.gateway) != process_of(first)
    assert (local.gateway.address, local.gateway.secret) == (first.address, first.secret)
    assert processes.members(first.token) == []
    assert local.state.pods == pods


def test_a_group_that_is_replaced_fails_nobody(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD_S", "0.02")
    local.up(**OPEN)
    before, answers, is_over = local.state.pods, list[list[str]](), threading.Event()

    def ask_on() -> None:
        while not is_over.is_set():
            answers.append(local.ask(10).all_words())

    people = [local.people.submit(ask_on) for _ in range(4)]
    until(lambda: len(answers) >= 4)
    local.up(**OPEN, engine={"limits": {"maxNumSeqs": 7}})
    num_before = len(answers)
    until(lambda: len(answers) >= num_before + 4)
    is_over.set()
    for each in people:
        each.result(DEADLINE_S)
    assert all(words == ["nano-g0", *map(str, range(1, 10))] for words in answers)
    assert {pod.pid for pod in local.state.pods}.isdisjoint(pod.pid for pod in before)


def test_without_a_gateway_groups_are_addressed_themselves(local: Local) -> None:
    local.up()
    token = local.gateway.token
    told = local.up(gateway={"enabled": False})
    assert told.stdout.splitlines() == [f"nano-g0 serves at http://127.{local.state.network}.0.1:8000/v1"]
    assert processes.members(token) == []
    assert local.state.gateway is None
    assert local.state.controller is None


def test_a_gateway_that_a_command_left_behind_is_swept(local: Local) -> None:
    local.up(**OPEN)
    first = local.gateway
    forgotten = msgspec.structs.replace(first, pid=0, start_ticks=0)  # recorded, pid not yet
    local.state_folder.write(msgspec.structs.replace(local.state, gateway=forgotten))
    local.up(**OPEN)
    assert processes.members(first.token) == []
    assert local.ask(1).all_words() == ["nano-g0"]


def test_down_takes_nothing_new_and_lets_what_runs_end(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    last_word = local.files / "last-word"
    monkeypatch.setenv("LAST_WORD", str(last_word))
    local.up(**OPEN)
    where, asked = url(local.gateway), local.ask(4).begun()
    ending = local.people.submit(local.glm, "local", "down")

    def is_refused() -> bool:
        try:
            return not httpx.get(f"{where}/models", verify=NO_TLS).is_success
        except httpx.TransportError:  # nobody listens, or hung up at that moment
            return True

    until(is_refused)
    assert not asked.done.done()
    last_word.touch()
    assert "no process left" in ending.result(DEADLINE_S).stdout
    assert asked.all_words() == ["nano-g0", "1", "2", "3"]


def test_what_waits_for_a_group_that_never_comes_holds_up_no_down(local: Local) -> None:
    local.up(**OPEN, replicas=0)
    asked = local.ask(1)
    until(lambda: "1 wait for a group" in local.glm("local", "status").stdout)
    begun_s = time.monotonic()
    local.glm("local", "down")
    assert time.monotonic() - begun_s < DEADLINE_S / 2, "the gateway may take 600 s"
    with pytest.raises(httpx.HTTPError):
        asked.done.result(DEADLINE_S)


def test_another_deployment_can_be_behind_the_same_address_and_leaves_it_again(local: Local) -> None:
    also = {"gateway": {"alsoServes": {"selector": {"matchLabels": {"name": "other"}}}}}
    model = {"name": "glm-nano", "source": "builtin://glm-nano", "servedName": "other"}
    local.up(**OPEN, **also)
    local.up("other", model=model, gateway={"enabled": False})

    def models() -> list[str]:
        found = httpx.get(f"{url(local.gateway)}/models", verify=NO_TLS).json()["data"]
        return sorted(each["id"] for each in found)

    until(lambda: models() == ["glm-nano", "other"])
    assert local.ask(1, model="other").all_words() == ["other-g0"]
    assert local.ask(1).all_words() == ["nano-g0"]
    local.glm("local", "down", "other")
    until(lambda: models() == ["glm-nano"])


@pytest.fixture
def controlled(local: Local, monkeypatch: pytest.MonkeyPatch) -> Local:
    """Return a local mode whose controller is this process, and makes workers that pretend."""
    monkeypatch.setattr(controller, "start", lambda folder, state, _: with_token(folder, state))
    return local


def with_token(folder: StateFolder, state: DeploymentState) -> DeploymentState:
    state = msgspec.structs.replace(state, controller=ControllerRecord(token="t"))
    folder.write(state)
    return state


async def look_until(control: Controller, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "the condition never came true"
        await control.look()


async def test_a_group_that_goes_gets_nothing_new_before_it_is_told_and_ends_what_it_has(
    controlled: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD_S", "0.05")
    local, sources = controlled, Sources(Scraper())
    with Management() as management:
        control = Controller(local.state_folder, "nano", "t", PROGRAM, sources, management)
        local.up(**OPEN, replicas=2, scaling={"min": 2, "max": 2})
        asked = [local.ask(60, prompt=f"{number} is the number").begun() for number in range(8)]
        assert {each.words[0] for each in asked} == {"nano-g0", "nano-g1"}
        put_scaling(local, 1)
        await look_until(control, lambda: bool(local.state.leaving))
        assert local.state.stopping == [], "the gateway has not seen it yet"
        await look_until(control, lambda: bool(local.state.stopping))
        (gone,) = local.state.stopping
        later = [local.ask(1).all_words()[0] for _ in range(4)]
        assert gone not in later
        await look_until(control, lambda: len(local.state.pods) == 1)
        assert [len(each.all_words()) for each in asked] == [60] * 8
        assert gone not in local.state_folder.groups_file("nano").read_text()
    await sources.close()


def put_scaling(local: Local, num_groups: int) -> None:
    body = local.state.body
    spec = {**body["spec"], "scaling": {"min": num_groups, "max": num_groups}}
    local.state_folder.write(msgspec.structs.replace(local.state, body={**body, "spec": spec}))


async def test_a_gateway_that_died_is_started_again_at_its_address(controlled: Local) -> None:
    local, sources = controlled, Sources(Scraper())
    with Management() as management:
        control = Controller(local.state_folder, "nano", "t", PROGRAM, sources, management)
        local.up(**OPEN)
        first = local.gateway
        processes.kill(process_of(first))
        until(lambda: not processes.is_alive(process_of(first)))
        assert "its gateway has died" in local.glm("local", "status").stdout
        await look_until(control, lambda: process_of(local.gateway) != process_of(first))
        await look_until(control, lambda: management.gateway(first.address) is not None)
        assert local.ask(1).all_words() == ["nano-g0"]
        assert local.gateway.secret == first.secret
    await sources.close()


async def test_what_waits_at_the_gateway_is_counted_where_there_is_always_a_group_as_well(controlled: Local) -> None:
    local, sources = controlled, Sources(Scraper())
    with Management() as management:
        control = Controller(local.state_folder, "nano", "t", PROGRAM, sources, management)
        local.up(**OPEN, scaling={"min": 1, "max": 2})
        await look_until(control, lambda: bool(control.memory.held))
        assert (control.memory.held[-1].requests, control.memory.held[-1].prompt_tokens) == (0.0, 0.0)
    await sources.close()


async def test_a_held_request_brings_the_first_group_and_an_up_brings_none(controlled: Local) -> None:
    local, sources = controlled, Sources(Scraper())
    zero = {"min": 0, "max": 1, "zero": {"idleAfter": "30s"}}
    with Management() as management:
        control = Controller(local.state_folder, "nano", "t", PROGRAM, sources, management)
        local.up(**OPEN, replicas=0, scaling=zero)
        address = local.gateway.address
        await control.look()
        local.up(**OPEN, scaling=zero)
        assert (local.state.pods, local.gateway.address) == ([], address)
        asked = local.ask(3)
        await look_until(control, asked.done.done)
        assert asked.all_words() == ["nano-g0", "1", "2"]
        assert local.gateway.address == address
        view = scaling.read(local.state_folder.scaling_file("nano"))
        assert view is not None
        assert (view.history[0].before, view.history[0].after, view.history[0].reason) == (0, 1, "Woken")
    await sources.close()
