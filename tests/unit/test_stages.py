"""`make test`: which stages run, what becomes of them, and how they are told apart at the end."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from e2e.lanes import FOLDER, LANE
from glm_cluster.errors import ClusterError
from glm_cluster.waiting import wait_for
from integration.conftest import LONG_FIRST

ROOT = Path(__file__).resolve().parents[2]
STORY_FILES = sorted((ROOT / "tests/e2e").glob("test_*.py"))


def loaded(name: str) -> Iterator[ModuleType]:
    """A script as a module; its name is prefixed, for tests/ has a folder e2e."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def stages() -> Iterator[ModuleType]:
    yield from loaded("stages")


@pytest.fixture
def e2e(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.delenv("STAGES_LEFT_OUT", raising=False)  # nothing told here is for the summary of this very run
    yield from loaded("e2e")


class Pretended:
    """A stage that ends as it is told: with an exit status, or by an interrupt while one waits for it.

    Those that speak end first, as they have fewer looks to wait for.
    """

    def __init__(self, module: ModuleType, end: Any, log: list[str], target: str, looks: int) -> None:
        self._module, self._end, self._log, self._target, self._looks = module, end, log, target, looks

    def ended(self) -> Any:
        if isinstance(self._end, BaseException):
            raise self._end
        self._looks -= 1
        return None if self._looks else self._module.Ran(int(self._end))

    def show(self) -> None:
        self._log.append(f"end of {self._target}")

    def stop(self) -> None:
        self._log.append(f"stop of {self._target}")


def starter(
    module: ModuleType, ends: dict[str, Any], log: list[str] | None = None, looks: dict[str, int] | None = None
) -> Callable[[Any, bool], Pretended]:
    """Return what begins a stage, given the exit statuses. log: what happened, in order. looks: until one has ended."""
    events = [] if log is None else log

    def start(stage: Any, is_kept: bool) -> Pretended:
        events.append(f"{stage.target}{' kept' if is_kept else ''}")
        return Pretended(module, ends.get(stage.target, 0), events, stage.target, (looks or {}).get(stage.target, 1))

    return start


def run(module: ModuleType, ends: dict[str, Any], *, log: list[str] | None = None, **options: Any) -> dict[str, str]:
    """What became of the stages a (fast), b (fast), slow and beside (slow), given their exit statuses."""
    listed = [
        module.Stage("a", ""),
        module.Stage("b", "", **options),
        module.Stage("slow", "", is_slow=True),
        module.Stage("beside", "", is_slow=True, after=("b",)),
    ]
    outcomes = module.run_stages(listed, starter(module, ends, log), lambda _: None)
    return {outcome.stage.target: outcome.result for outcome in outcomes} | {"exit": module.exit_status(outcomes)}


def test_stages_run_side_by_side_and_one_speaks_after_the_other(stages: ModuleType) -> None:
    log: list[str] = []
    run(stages, {}, log=log)
    assert log == ["a", "end of a", "b", "end of b", "slow", "beside kept", "end of slow", "end of beside"]


def test_a_slow_stage_that_fails_leaves_the_one_beside_it_to_its_end(stages: ModuleType) -> None:
    assert run(stages, {"slow": 2}) == {"a": "passed", "b": "passed", "slow": "failed", "beside": "passed", "exit": 1}


def in_two_rows(module: ModuleType) -> list[Any]:
    """Two fast ones at the same time, and after each a slow one."""
    return [
        module.Stage("cluster", ""),
        module.Stage("unit", "", after=()),
        module.Stage("e2e", "", is_slow=True, after=("cluster",)),
        module.Stage("integration", "", is_slow=True, after=("unit",)),
    ]


def test_a_stage_begins_when_those_before_it_have_ended_whatever_else_runs(stages: ModuleType) -> None:
    log: list[str] = []
    looks = {"cluster": 2, "unit": 3, "e2e": 9, "integration": 2}
    outcomes = stages.run_stages(in_two_rows(stages), starter(stages, {}, log, looks), lambda _: None)
    assert log[:5] == ["cluster", "unit kept", "end of cluster", "e2e", "integration kept"]
    assert log[5:] == ["end of unit", "end of integration", "end of e2e"]
    assert [outcome.stage.target for outcome in outcomes] == ["cluster", "unit", "e2e", "integration"]


def test_a_slow_stage_that_runs_goes_on_when_another_fails_and_none_is_begun(stages: ModuleType) -> None:
    said: list[str] = []
    looks = {"unit": 5, "e2e": 9}
    outcomes = stages.run_stages(in_two_rows(stages), starter(stages, {"unit": 1}, looks=looks), said.append)
    assert [outcome.result for outcome in outcomes] == ["passed", "failed", "passed", "left out"]
    assert "==> unit: failed after 0 s; its output comes when e2e has ended" in said


def test_an_interrupt_stops_all_that_run(stages: ModuleType) -> None:
    log: list[str] = []
    ended = run(stages, {"slow": KeyboardInterrupt()}, log=log)
    assert ended == {"a": "passed", "b": "passed", "slow": "interrupted", "beside": "interrupted", "exit": 130}
    assert log[-4:] == ["stop of slow", "stop of beside", "end of slow", "end of beside"]


def test_everything_runs_when_nothing_fails(stages: ModuleType) -> None:
    assert run(stages, {}) == {"a": "passed", "b": "passed", "slow": "passed", "beside": "passed", "exit": 0}


def test_a_failed_stage_does_not_hide_the_next_but_the_slow_ones_are_left_out(stages: ModuleType) -> None:
    assert run(stages, {"a": 2}) == {
        "a": "failed",
        "b": "passed",
        "slow": "left out",
        "beside": "left out",
        "exit": 1,
    }


def test_what_this_machine_cannot_run_is_left_out_with_its_reason_and_fails_nothing(stages: ModuleType) -> None:
    ended = run(stages, {}, obstacle=lambda: "no Go")
    assert ended == {"a": "passed", "b": "left out", "slow": "passed", "beside": "passed", "exit": 0}


def test_an_interrupt_ends_the_run(stages: ModuleType) -> None:
    assert run(stages, {"b": KeyboardInterrupt()}) == {"a": "passed", "b": "interrupted", "exit": 130}


def test_what_is_left_out_is_said_loudly(stages: ModuleType) -> None:
    said: list[str] = []
    stages.run_stages([stages.Stage("e2e", "", lambda: "no root")], starter(stages, {}), said.append)
    assert said == ["==> e2e: LEFT OUT: no root"]


def test_fast_stages_come_first(stages: ModuleType) -> None:
    slowness = [stage.is_slow for stage in stages.STAGES]
    assert slowness == sorted(slowness)


def test_a_stage_comes_after_such_as_are_listed_before_it(stages: ModuleType) -> None:
    for place, stage in enumerate(stages.STAGES):
        assert stages._before(stage, stages.STAGES) <= {each.target for each in stages.STAGES[:place]}


def test_what_needs_the_cluster_never_runs_beside_what_takes_it_down(stages: ModuleType) -> None:
    (e2e,) = (stage for stage in stages.STAGES if stage.target == "e2e")
    assert "lifecycle" in e2e.after


def test_who_runs_beside_what_was_left_out_speaks_at_once(stages: ModuleType) -> None:
    log: list[str] = []
    listed = [stages.Stage("a", "", lambda: "no Go"), stages.Stage("b", "", after=())]
    stages.run_stages(listed, starter(stages, {}, log), lambda _: None)
    assert log == ["b", "end of b"]


def test_the_long_files_of_integration_begin_first() -> None:
    """By itself xdist begins with the files of most tests, and a file of one long test runs alone at the end."""
    assert all((ROOT / "tests/integration" / name).is_file() for name in LONG_FIRST)
    recipe = (ROOT / "Makefile").read_text().partition("\nintegration: ")[2].partition("\n\n")[0]
    assert "--dist loadfile --no-loadscope-reorder" in recipe


def test_the_halves_of_unit_are_the_whole_of_it(stages: ModuleType) -> None:
    halves = {
        line.strip()
        for line in (ROOT / "Makefile").read_text().splitlines()
        if "$(PYTEST) -m" in line and " tests/unit" in line
    }
    assert {half.partition('"not e2e" ')[2] for half in halves} == {
        "tests/unit/worker",
        "--ignore=tests/unit/worker tests/unit",
    }


def test_every_stage_is_a_target_of_the_makefile(stages: ModuleType) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{stage.target}: " in makefile for stage in stages.STAGES)


def test_the_summary_says_what_a_stage_that_ran_left_out(stages: ModuleType) -> None:
    outcome = stages.Outcome(stages.Stage("e2e", ""), "passed", left_out=("x.py: no Go",))
    first, second = outcome.lines()
    assert first.split()[:2] == ["e2e", "passed"]
    assert second.split() == ["LEFT", "OUT", "x.py:", "no", "Go"]


def test_a_stage_tells_what_it_left_out_through_a_file(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "make"
    program.write_text('#!/bin/sh\necho "$1.py: no Go" >> "$STAGES_LEFT_OUT"\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (outcome,) = stages.run_stages([stages.Stage("e2e", "")], stages.Make, lambda _: None)
    assert (outcome.result, outcome.left_out) == ("failed", ("e2e.py: no Go",))


def test_what_a_stage_said_beside_another_is_shown_when_it_has_ended(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    program = tmp_path / "make"
    program.write_text("#!/bin/sh\necho out\necho error >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(stages.sys, "stdout", sys.__stdout__)
    made = stages.Make(stages.Stage("integration", ""), is_kept=True)
    wait_for("the end of it", made.ended, timeout_s=30)
    assert made.ended().status == 0
    made.show()
    assert capfdbinary.readouterr().out == b"out\nerror\n"


def test_what_a_stage_skips_is_told_through_that_file(tmp_path: Path) -> None:
    notes, tests = tmp_path / "left-out", "tests/contract/test_chart_rendered.py"
    nothing_built = {"PATH": str(tmp_path), "GLM_CACHE_DIR": str(tmp_path), "STAGES_LEFT_OUT": str(notes)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    done = subprocess.run(command, cwd=ROOT, env=nothing_built, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (line,) = notes.read_text().splitlines()
    assert re.fullmatch(rf"{re.escape(tests)}: \d+ skipped: no helm: .*`make cluster` has not built it yet", line)


@pytest.mark.parametrize("flags", [[], ["--two-lanes"]])
@pytest.mark.parametrize(
    ("kubeconfig", "is_up", "stories", "said"),
    [
        ("", False, 0, ""),
        ("", True, 0, ""),
        ("", False, 1, ""),
        ("given", False, 0, "E2E_KUBECONFIG names a cluster"),
    ],
)
def test_every_test_that_e2e_knows_runs_or_is_said_to_be_left_out(
    e2e: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kubeconfig: str,
    is_up: bool,
    stories: int,
    said: str,
    flags: list[str],
) -> None:
    ran: list[str] = []

    def pytest_runs(*lanes: list[str]) -> int:
        for tests in lanes:
            ran.extend(tests)
        return stories

    notes = tmp_path / "left-out"
    monkeypatch.setattr(e2e, "given_cluster", lambda _: kubeconfig or None)
    monkeypatch.setattr(e2e, "check", lambda _, with_images: None)
    monkeypatch.setenv("STAGES_LEFT_OUT", str(notes))
    monkeypatch.setattr(e2e, "is_up", lambda: is_up)
    monkeypatch.setattr(e2e, "operators", list)
    monkeypatch.setattr(e2e, "cluster", lambda _: None)
    monkeypatch.setattr(e2e, "pytest", pytest_runs)
    monkeypatch.setattr(e2e, "in_two_lanes", pytest_runs)
    monkeypatch.setattr(e2e.sys, "argv", ["scripts/e2e.py", *flags])
    monkeypatch.setattr(e2e.signal, "signal", lambda *_: None)
    assert e2e.main() == stories
    told = capsys.readouterr().out
    assert said in told
    assert ("LEFT OUT: " in told) == bool(said)
    assert told == "".join(f"LEFT OUT: {line}\n" for line in (notes.read_text() if said else "").splitlines())
    known = [*e2e.OF_OUR_CLUSTER, *e2e.GUESTS]
    assert all((test in ran) != (test in told) for test in known)
    assert set(ran) >= {*e2e.STORIES} or set(ran) >= {str(path.relative_to(ROOT)) for path in STORY_FILES}
    assert len(set(ran)) == len(ran)


def test_an_operator_that_the_stories_uninstall_is_announced_and_its_way_back_told(
    e2e: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("E2E_KUBECONFIG", raising=False)
    monkeypatch.setattr(e2e, "is_up", lambda: True)
    monkeypatch.setattr(e2e, "operators", lambda: ["glm in glm-system"])
    monkeypatch.setattr(e2e, "cluster", lambda _: None)
    monkeypatch.setattr(e2e, "pytest", lambda *_: print("RUN") or 0)
    monkeypatch.setattr(e2e.sys, "argv", ["scripts/e2e.py"])
    monkeypatch.setattr(e2e.signal, "signal", lambda *_: None)
    assert e2e.main() == 0
    before, _, after = capsys.readouterr().out.partition("RUN")
    assert "at their end uninstall, what is installed here: glm in glm-system" in before
    assert "The stories uninstall glm in glm-system" in after
    assert "make cluster-nano" in after


@pytest.mark.parametrize(
    ("argv", "marker", "tests"),
    [
        (["--long"], "long", ["tests/e2e"]),
        (["-k", "fleet"], "not long", ["tests/e2e", "-k", "fleet"]),
        (["--long", "-x"], "long", ["tests/e2e", "-x"]),
    ],
)
def test_long_stories_run_when_asked_for_and_then_alone(
    e2e: ModuleType, monkeypatch: pytest.MonkeyPatch, argv: list[str], marker: str, tests: list[str]
) -> None:
    monkeypatch.delenv("E2E_KUBECONFIG", raising=False)
    monkeypatch.setattr(e2e.sys, "argv", ["scripts/e2e.py", *argv])
    monkeypatch.setattr(e2e, "is_up", lambda: True)
    monkeypatch.setattr(e2e, "operators", list)
    monkeypatch.setattr(e2e, "cluster", lambda _: None)
    monkeypatch.setattr(e2e.signal, "signal", lambda *_: None)
    commands: list[list[str]] = []

    def runs(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(e2e.subprocess, "run", runs)
    assert e2e.main() == 0
    (command,) = commands
    assert command[command.index("-m", 2) + 1 :][0] == marker
    assert [each for each in command if each in tests] == tests
    assert "--long" not in command


@pytest.fixture
def lane_commands(e2e: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane prints its name and its tests, and ends with the status that its first test is; the first one waits."""
    program = """
import os, pathlib, sys, time
lane, ended = os.environ["E2E_LANE"], pathlib.Path(os.environ["E2E_LANES"], "ended")
print(lane, *sys.argv[1:], flush=True)
while lane == "first" and not ended.exists():
    time.sleep(0.01)
print(ended.read_text() if lane == "first" else "", flush=True)
sys.exit(int(sys.argv[1]))
"""
    monkeypatch.setattr(e2e, "pytest_of", lambda tests: [sys.executable, "-c", program, *tests])
    monkeypatch.setattr(e2e.sys, "stdout", sys.__stdout__)


@pytest.mark.parametrize(("first", "second", "status"), [("0", "0", 0), ("3", "0", 3), ("0", "4", 4), ("3", "4", 3)])
def test_two_lanes_fail_when_one_does_and_the_first_learns_how_the_second_ended(
    e2e: ModuleType, lane_commands: None, capfd: pytest.CaptureFixture[str], first: str, second: str, status: int
) -> None:
    assert e2e.in_two_lanes([first], [second, "x.py"]) == status
    of_first, _, of_second = capfd.readouterr().out.partition("==> e2e: the second lane")
    told = json.loads(of_first.splitlines()[1])
    assert told == {"status": int(second), "files": [str(ROOT / second), str(ROOT / "x.py")]}
    assert f"second {second} x.py" in of_second


def test_the_second_lane_ends_with_the_first_when_that_is_interrupted(
    e2e: ModuleType, lane_commands: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(e2e, "pytest_of", lambda _: [sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(e2e, "run_first", interrupted)
    with pytest.raises(KeyboardInterrupt):
        e2e.in_two_lanes([], [])


def test_the_lanes_share_a_deployment_each_and_have_no_story_in_common(e2e: ModuleType) -> None:
    first, second = e2e.lanes_of_stories()
    assert all((ROOT / test).is_file() for test in [*first, *second])
    shares = {
        story: set(re.findall(r"\b(shared|pair): Deployed", (ROOT / story).read_text())) for story in [*first, *second]
    }
    assert set().union(*(shares[story] for story in first)) == {"shared"}
    assert set().union(*(shares[story] for story in second)) == {"pair"}
    assert not set(first) & set(second)


def test_what_the_script_tells_the_lanes_is_what_they_read() -> None:
    script = (ROOT / "scripts/e2e.py").read_text()
    assert f'"{FOLDER}": ' in script
    assert f'"{LANE}": "first"' in script


def test_a_given_cluster_without_images_is_told_and_nothing_runs(
    e2e: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give_kubeconfig(monkeypatch, tmp_path)
    monkeypatch.setattr(e2e, "pytest", pytest.fail)
    monkeypatch.setattr(e2e, "cluster", pytest.fail)
    monkeypatch.setattr(e2e.signal, "signal", lambda *_: None)
    assert e2e.main() == 1
    assert capsys.readouterr().err.startswith("E2E_OPERATOR_IMAGE is not set; ")


def test_a_machine_that_cannot_have_a_cluster_is_told_before_anything_is_done(
    e2e: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("E2E_KUBECONFIG", raising=False)
    monkeypatch.setattr(e2e, "is_up", lambda: False)
    monkeypatch.setattr(e2e, "check", refuse)
    monkeypatch.setattr(e2e, "cluster", pytest.fail)
    monkeypatch.setattr(e2e.signal, "signal", lambda *_: None)
    assert e2e.main() == 1
    assert capsys.readouterr().err == "no room\n"


def test_the_logs_of_a_cluster_that_did_not_come_up_are_kept(
    e2e: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("E2E_KUBECONFIG", raising=False)
    monkeypatch.setenv("GLM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("GLM_CACHE_DIR", str(tmp_path / "cache"))
    logs = tmp_path / "state/cluster/logs"
    commands: list[str] = []

    def cluster(command: str) -> None:
        commands.append(command)
        if command == "down":
            shutil.rmtree(logs)
            return
        logs.mkdir(parents=True)
        (logs / "etcd.log").write_text("no space left")
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(e2e, "is_up", lambda: False)
    monkeypatch.setattr(e2e, "check", lambda _, with_images: None)
    monkeypatch.setattr(e2e, "cluster", cluster)
    monkeypatch.setattr(e2e, "pytest", pytest.fail)
    monkeypatch.setattr(e2e.signal, "signal", lambda *_: None)
    assert e2e.main() == 1
    assert commands == ["up", "down"]
    kept = tmp_path / "cache/logs-of-failed-cluster"
    assert (kept / "etcd.log").read_text() == "no space left"
    assert f"are kept in {kept}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "is_up", "can_be", "said"),
    [
        ("/kubeconfig", False, True, "E2E_KUBECONFIG names a cluster"),
        ("", True, True, "a cluster is up (make cluster-down)"),
        ("", False, False, "no room"),
        ("", False, True, None),
    ],
)
def test_the_life_of_a_cluster_is_told_only_where_none_is_up_and_one_can_be(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, given: str, is_up: bool, can_be: bool, said: str | None
) -> None:
    monkeypatch.setenv("E2E_KUBECONFIG", given)
    monkeypatch.setattr(stages.Cluster, "is_whole", lambda _: is_up)
    monkeypatch.setattr(stages, "check", (lambda _: None) if can_be else lambda _: refuse(_, with_images=True))
    reason = stages.no_lifecycle()
    assert reason == said if said is None else str(reason).startswith(said)


def test_stories_of_which_all_are_long_lie_in_their_folder() -> None:
    """Else no run would have told a story of every file, which a story of test_release.py waits for."""
    files = list((ROOT / "tests/e2e").glob("test_*.py"))
    assert files
    assert not [path.name for path in files if re.search(r"^pytestmark = .*\blong\b", path.read_text(), re.MULTILINE)]


def test_e2e_is_left_out_where_no_cluster_can_be_had(stages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("E2E_KUBECONFIG", raising=False)
    monkeypatch.setattr(stages, "check", refuse)
    assert stages.no_cluster().startswith("no room; to run it anyway point E2E_KUBECONFIG at a cluster")
    monkeypatch.setattr(stages, "check", lambda _, with_images: None)
    assert stages.no_cluster() is None


def test_e2e_on_a_given_cluster_is_never_left_out(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give_kubeconfig(monkeypatch, tmp_path)
    monkeypatch.setattr(stages, "check", refuse)
    assert stages.no_cluster() is None  # not left out: the stage fails and says that the images are not set
    monkeypatch.setenv("E2E_OPERATOR_IMAGE", "registry.example/operator:1")
    monkeypatch.setenv("E2E_WORKER_IMAGE", "registry.example/worker:1")
    assert stages.no_cluster() is None


def refuse(_: object, *, with_images: bool) -> None:
    assert with_images
    raise ClusterError("no room")


def give_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Name a cluster with programs to use it, and no images."""
    for program in ("kubectl", "helm"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("E2E_KUBECONFIG", str(tmp_path / "kubectl"))
    monkeypatch.delenv("E2E_OPERATOR_IMAGE", raising=False)
    monkeypatch.delenv("E2E_WORKER_IMAGE", raising=False)
