"""`make demo` leaves nothing behind, however it ends."""

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo() -> Iterator[ModuleType]:
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
    monkeypatch.setattr(demo, "fall_silent", lambda: silences.append("silent"))
    assert demo.main() == 130
    assert calls[-2:] == [("local", "up", "-f", "examples/nano.yaml"), ("local", "down")]
    assert bool(silences) == (number == signal.SIGHUP)
