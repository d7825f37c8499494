"""What holds for every test: no proxy, no bound of seconds by itself, and what is skipped is told to `make test`."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from glm_cluster.commands import PROXY_VARIABLES

STORIES = Path(__file__).with_name("e2e")

settings.register_profile("no bound of seconds", deadline=None)  # on a busy machine it would judge the machine
settings.load_profile("no bound of seconds")


@pytest.fixture(scope="module", autouse=True)
def _no_proxy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ask the servers of a test directly: a proxy of the environment knows nothing of this machine's loopback.

    Not so around a cluster, whose images are built from package indexes and whose API server may be behind a proxy.
    """
    if request.path.is_relative_to(STORIES) or request.node.get_closest_marker("e2e"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for variable in PROXY_VARIABLES:
            patch.delenv(variable, raising=False)
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Append what was skipped and why, a line a file and reason, to the file that STAGES_LEFT_OUT names."""
    notes = os.environ.get("STAGES_LEFT_OUT")
    if not notes:
        return
    skipped = Counter(
        (report.nodeid.partition("::")[0], report.longrepr[2].removeprefix("Skipped: "))
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)  # not so for an expected failure
    )
    with Path(notes).open("a") as file:
        file.writelines(f"{path}: {count} skipped: {reason}\n" for (path, reason), count in skipped.items())
