"""Two lanes of stories: who may tell one when, and how the first learns what became of the second."""

import fcntl
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.lanes import FOLDER, LANE, Lanes, found_lanes
from glm_cluster.waiting import wait_for

LIMIT_S = 30.0


def begun(lanes: Lanes, *, alone: bool) -> threading.Event:
    """Begin a turn in a thread of its own, as the other lane's process would; the event is set once it has it."""
    has_it = threading.Event()

    def begin() -> None:
        lanes.begin_turn(alone=alone)
        has_it.set()

    threading.Thread(target=begin, daemon=True).start()
    return has_it


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Lanes]:
    yield from ended(Lanes(tmp_path, is_first=True))


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Lanes]:
    yield from ended(Lanes(tmp_path, is_first=False))


def ended(lanes: Lanes) -> Iterator[Lanes]:
    """A lane whose turn ends with the test."""
    yield lanes
    if lanes._turn:
        lanes.end_turn()


def test_both_lanes_tell_stories_at_the_same_time(first: Lanes, second: Lanes) -> None:
    first.begin_turn(alone=False)
    assert begun(second, alone=False).wait(LIMIT_S)


@pytest.mark.parametrize("alone", [False, True])
def test_nobody_tells_a_story_beside_one_that_is_alone(first: Lanes, second: Lanes, alone: bool) -> None:
    first.begin_turn(alone=True)
    has_it = begun(second, alone=alone)
    assert not has_it.wait(0.2)
    first.end_turn()
    assert has_it.wait(LIMIT_S)


def test_who_is_to_be_alone_comes_before_the_next_story_of_the_other_lane(
    first: Lanes, second: Lanes, tmp_path: Path
) -> None:
    first.begin_turn(alone=False)
    is_alone = begun(second, alone=True)
    wait_for("the door held", lambda: _is_locked(tmp_path / "door"), timeout_s=LIMIT_S)
    first.end_turn()
    goes_on = begun(first, alone=False)
    assert is_alone.wait(LIMIT_S)
    assert not goes_on.wait(0.2)
    second.end_turn()
    assert goes_on.wait(LIMIT_S)


def _is_locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_turn_that_goes_on_is_begun_once(first: Lanes, second: Lanes) -> None:
    first.begin_turn(alone=True)
    first.begin_turn(alone=True)
    first.end_turn()
    assert begun(second, alone=True).wait(LIMIT_S)


def test_the_first_lane_learns_how_the_second_ended_and_of_which_files(first: Lanes, tmp_path: Path) -> None:
    (tmp_path / "ended").write_text(json.dumps({"status": 1, "files": ["/tests/e2e/test_quota.py"]}))
    first.wait_second()
    assert first.second() == (1, frozenset({Path("/tests/e2e/test_quota.py")}))


def test_the_second_lane_begins_when_the_first_has_installed_the_operator(first: Lanes, second: Lanes) -> None:
    first.tell_installed()
    second.wait_installed()


def test_the_environment_says_which_lane_this_is(tmp_path: Path) -> None:
    assert found_lanes({}) is None
    assert found_lanes({FOLDER: str(tmp_path), LANE: "second"}) == Lanes(tmp_path, is_first=False)
