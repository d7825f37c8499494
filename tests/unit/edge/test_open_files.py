"""How many files processes may open, and how many connections of clients go into that."""

import resource
import subprocess
import sys

import pytest

from glm_edge.http.protocol import MAX_CONNECTIONS
from glm_edge.open_files import MOST, connections_within

TELL = """
import resource, sys
from glm_edge.open_files import raise_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(raise_open_files(int(sys.argv[3])), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "most", "told"),
    [
        (64, 512, 256, "256 256 512"),
        (64, 512, 4096, "512 512 512"),
        (512, 512, 256, "512 512 512"),
    ],
)
def test_the_soft_limit_goes_up_and_never_down(soft: int, hard: int, most: int, told: str) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > hard
    command = [sys.executable, "-c", TELL, str(soft), str(hard), str(most)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == told


def test_each_connection_of_a_client_may_need_another_one_and_files_are_left() -> None:
    assert connections_within(1024) == 448
    assert connections_within(MOST) > MAX_CONNECTIONS, "the limit that is asked for holds nobody back"
    assert connections_within(20) == 16
