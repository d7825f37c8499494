"""Two lanes of stories: each a pytest of its own, both on one cluster with one operator (scripts/e2e.py starts them).

The first lane installs the operator, and uninstalls it when the second has ended. Most stories only need it to run.
Those that do something to it, or to the node, are marked `alone`: the other lane tells no story meanwhile.
"""

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from e2e.deployments import wait_for

FOLDER, LANE = "E2E_LANES", "E2E_LANE"
"""Variables that scripts/e2e.py sets: a folder that both lanes have, and which lane this is: first or second."""

INSTALL_S = 300.0
"""Until the first lane has installed the operator: what it tells before is about the cluster, and takes a minute."""

SECOND_S = 1800.0
"""Until the second lane has ended, once the first has told all but its last stories."""


@dataclass(frozen=True)
class Lanes:
    """What one lane sees of both. folder: what they have in common."""

    folder: Path
    is_first: bool
    _turn: list[TextIO] = field(default_factory=list)  # the lock, while this lane has it

    def begin_turn(self, *, alone: bool) -> None:
        """Get the right to tell stories, alone or beside the other lane; no change if this lane has it.

        Who waits to be alone holds the door meanwhile, or the other lane's stories would go on to their last.
        """
        if self._turn:
            return
        with (self.folder / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            turn = (self.folder / "turn").open("w")
            fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            self._turn.append(turn)

    def end_turn(self) -> None:
        self._turn.pop().close()

    def tell_installed(self) -> None:
        (self.folder / "installed").touch()

    def wait_installed(self) -> None:
        wait_for("the first lane's operator", (self.folder / "installed").exists, timeout_s=INSTALL_S)

    def wait_second(self) -> None:
        """Return when the second lane has ended, however it did."""
        wait_for("the end of the second lane", (self.folder / "ended").exists, timeout_s=SECOND_S)

    def second(self) -> tuple[int, frozenset[Path]]:
        """Return the exit status of the second lane, which has ended, and the files of its tests."""
        told: dict[str, Any] = json.loads((self.folder / "ended").read_text())
        return int(told["status"]), frozenset(map(Path, told["files"]))


def found_lanes(environ: Mapping[str, str]) -> Lanes | None:
    """Return what the environment says of the lanes; None where one pytest tells all stories."""
    folder = environ.get(FOLDER)
    return Lanes(Path(folder), environ[LANE] == "first") if folder else None
