"""`make demo` leaves nothing behind, however it ends, and counts everybody who waits."""

import importlib.util
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "examples")  # as for a script that is started there
    spec = importlib.util.spec_from_file_location("examples_demo", ROOT / "examples/demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background has it ignored
    yield module
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_the_demo_started(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    calls: list[tuple[str, ...]] = []
    silences: list[str] = []

    def glm(*arguments: str) -> None:
        calls.append(arguments)
        if arguments[0] == "local":  # while it starts, and again while it stops
            signal.raise_signal(number)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(demo, "glm", glm)
    monkeypatch.setattr(demo, "made_key", lambda *_: "glm-key")
    monkeypatch.setattr(demo, "fall_silent", lambda: silences.append("silent"))
    assert demo.main() == 130
    assert calls[-2:] == [("local", "up", "-f", "examples/gateway.yaml"), ("local", "down")]
    assert bool(silences) == (number == signal.SIGHUP)


@pytest.fixture
def burst(demo: ModuleType) -> ModuleType:
    """Return the demo's module of that name."""
    module = sys.modules["burst"]
    assert module.Burst is demo.Burst
    return module


def a_burst(burst: ModuleType, *waits: tuple[float, float]) -> Any:
    """Return a burst with questions that were asked at a time and had their first word at another."""
    questions = [burst.Question(asked_s, first_word_s) for asked_s, first_word_s in waits]
    return burst.Burst(lambda *_: None, 0, questions)


@pytest.mark.parametrize(
    ("waits", "late_until_s"),
    [
        ([], -math.inf),
        ([(0.0, 0.5), (1.0, 1.1)], -math.inf),
        ([(0.0, 2.0), (1.0, 1.1)], 2.0),
        ([(0.0, 2.0), (8.0, math.inf)], 10.0),  # it still waits, now
        ([(0.0, 2.0), (9.8, math.inf)], 2.0),  # it still waits, and not for too long yet
    ],
)
def test_the_promise_is_broken_as_long_as_anybody_waits_too_long(
    burst: ModuleType, waits: list[tuple[float, float]], late_until_s: float
) -> None:
    assert a_burst(burst, *waits).late_until_s(0.5, 10.0) == late_until_s


def test_the_longest_wait_is_of_new_questions_and_of_all_that_still_wait(burst: ModuleType) -> None:
    asked = a_burst(burst, (0.0, 5.0), (6.0, math.inf), (9.0, 9.2))
    assert asked.longest_wait_s(10.0, since_s=9.0) == 4.0


def until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30.0
    while not is_so():
        assert time.monotonic() < deadline_s, "the condition never came true"


def test_everybody_asks_at_once_and_has_an_answer_at_the_end(burst: ModuleType) -> None:
    all_ask, may_end, answers = threading.Barrier(7, timeout=30.0), threading.Event(), []

    def ask(has_begun: Callable[[], None]) -> None:
        has_begun()
        if not may_end.is_set():
            all_ask.wait()
        may_end.wait(30.0)
        answers.append("right")

    crowd = burst.Burst(ask, 6)
    with crowd.going():
        all_ask.wait()
        assert answers == []
        may_end.set()
    assert len(answers) == len(crowd.questions) >= 6
    assert all(question.first_word_s < math.inf for question in crowd.questions)


def test_a_question_that_fails_ends_the_burst_and_is_told(burst: ModuleType) -> None:
    def ask(_has_begun: Callable[[], None]) -> None:
        raise ConnectionError("refused")

    crowd = burst.Burst(ask, 1)
    with crowd.going():
        until(lambda: bool(crowd.failures))
    assert crowd.failures == ["ConnectionError: refused"]
