"""`make test`: which stages run, what becomes of them, and how they are told apart at the end."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/stages.py"


@pytest.fixture(scope="module")
def stages() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("stages", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stages"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["stages"]


def run(module: ModuleType, statuses: dict[str, Any], **options: Any) -> dict[str, str]:
    """What became of the stages a (fast), b (fast) and slow, given their exit statuses."""
    listed = [
        module.Stage("a", ""),
        module.Stage("b", "", **options),
        module.Stage("slow", "", is_slow=True),
    ]

    def status(stage: Any) -> int:
        result = statuses.get(stage.target, 0)
        if isinstance(result, BaseException):
            raise result
        return int(result)

    outcomes = module.run_stages(listed, status, lambda _: None)
    return {outcome.stage.target: outcome.result for outcome in outcomes} | {"exit": module.exit_status(outcomes)}


def test_everything_runs_when_nothing_fails(stages: ModuleType) -> None:
    assert run(stages, {}) == {"a": "passed", "b": "passed", "slow": "passed", "exit": 0}


def test_a_failed_stage_does_not_hide_the_next_but_the_slow_ones_are_left_out(stages: ModuleType) -> None:
    assert run(stages, {"a": 2}) == {"a": "failed", "b": "passed", "slow": "left out", "exit": 1}


def test_what_this_machine_cannot_run_is_left_out_with_its_reason_and_fails_nothing(stages: ModuleType) -> None:
    assert run(stages, {}, obstacle=lambda: "no Go") == {"a": "passed", "b": "left out", "slow": "passed", "exit": 0}


def test_an_interrupt_ends_the_run(stages: ModuleType) -> None:
    assert run(stages, {"b": KeyboardInterrupt()}) == {"a": "passed", "b": "interrupted", "exit": 130}


def test_what_is_left_out_is_said_loudly(stages: ModuleType) -> None:
    said: list[str] = []
    stages.run_stages([stages.Stage("e2e", "", lambda: "no root")], lambda _: 0, said.append)
    assert said == ["==> e2e: LEFT OUT: no root"]


def test_fast_stages_come_first(stages: ModuleType) -> None:
    slowness = [stage.is_slow for stage in stages.STAGES]
    assert slowness == sorted(slowness)


def test_every_stage_is_a_target_of_the_makefile(stages: ModuleType) -> None:
    makefile = (SCRIPT.parents[1] / "Makefile").read_text()
    assert all(f"\n{stage.target}: " in makefile for stage in stages.STAGES)
