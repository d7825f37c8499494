"""What holds for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from glm_cluster.commands import PROXY_VARIABLES

STORIES = Path(__file__).with_name("e2e")


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
