"""The step channel over real sockets. Each end runs in a thread of its own."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq

from glm_worker.engine.channel import (
    MAX_ERROR_CHARS,
    MAX_LOADED_BYTES,
    Committed,
    FollowerChannel,
    KeepAlive,
    LeaderChannel,
    Loaded,
    Report,
    StepInput,
)
from glm_worker.errors import EngineFailed
from glm_worker.messages import Cancel, Submit
from integration.engine_group import a_request
from integration.listening import listening

DEADLINE_S = 60.0
SECRET = "0123456789abcdef"


class Group:
    """The channels of the ranks of one generation."""

    def __init__(self, endpoint: str, num_ranks: int) -> None:
        self._open = ExitStack()
        self._num_ranks = num_ranks
        self._endpoint = endpoint
        self.followers = [FollowerChannel(endpoint, SECRET, rank) for rank in range(1, num_ranks)]
        for follower in self.followers:
            self._open.callback(follower.close)

    def agree(self, blocks: list[int]) -> list[int]:
        """Let rank r say that it has room for blocks[r]; return what each rank has agreed to."""
        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(f.agree, n) for f, n in zip(self.followers, blocks[1:], strict=True)]
            self.leader = LeaderChannel(self._endpoint, SECRET, self._num_ranks)  # after the followers began to try
            self._open.callback(self.leader.close)
            return [self.leader.agree(blocks[0]), *(future.result(DEADLINE_S) for future in waiting)]

    def close(self) -> None:
        self._open.close()


@pytest.fixture(autouse=True)
def no_zmq_threads_are_left() -> Iterator[None]:
    """Other tests fork, which is safe only beside no threads."""
    yield
    zmq.Context.instance().term()


def endpoint_at(host: str) -> str:
    """Return an endpoint at a free port. Skips the test where the machine has no such address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as server:
            port = server.getsockname()[1]
    except OSError as error:
        pytest.skip(f"no address {host}: {error}")
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


@pytest.fixture
def endpoint() -> str:
    return endpoint_at("127.0.0.1")


@contextmanager
def a_group(endpoint: str, blocks: list[int]) -> Iterator[tuple[Group, list[int]]]:
    with closing(Group(endpoint, len(blocks))) as group:
        yield group, group.agree(blocks)


@pytest.mark.parametrize("blocks", [[5], [5, 9], [9, 5], [7, 8, 6, 9]])
def test_all_ranks_agree_on_the_least_number_of_blocks(endpoint: str, blocks: list[int]) -> None:
    with a_group(endpoint, blocks) as (_, agreed):
        assert agreed == [min(blocks)] * len(blocks)


def test_the_channel_works_between_addresses_of_ipv6() -> None:
    with a_group(endpoint_at("::1"), [5, 9]) as (_, agreed):
        assert agreed == [5, 5]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_leader_that_listens_everywhere_is_found_at_its_addresses_of_both_families(host: str) -> None:
    there = endpoint_at(host)
    port = there.rpartition(":")[2]
    with closing(FollowerChannel(there, SECRET, 1)) as follower:
        follower.send(Loaded(5))
        with closing(LeaderChannel(f"tcp://*:{port}", SECRET, 2)) as leader:
            assert leader.agree(9) == 5


def test_ranks_of_one_pod_meet_at_a_file(tmp_path: Path) -> None:
    before = listening()
    with a_group(f"ipc://{tmp_path}/steps", [5, 9]) as (group, agreed):
        assert agreed == [5, 5]
        group.leader.send(KeepAlive())
        assert group.followers[0].receive(DEADLINE_S) == KeepAlive()
        assert listening() == before


def test_every_follower_receives_every_message_in_order(endpoint: str) -> None:
    commands = [Submit("g-1", a_request("a", [1, 2])), Cancel("g-1", "a")]
    messages = [KeepAlive(), StepInput(1, [*commands], 0xFFFFFFFF), StepInput(2, [Committed([[7], [8, 9]])], 0)]
    with a_group(endpoint, [1, 1, 1]) as (group, _):
        for message in messages:
            group.leader.send(message)
        for follower in group.followers:
            assert [follower.receive(DEADLINE_S) for _ in messages] == messages


def test_a_follower_can_report_and_strangers_cannot(endpoint: str) -> None:
    with a_group(endpoint, [5, 4, 3]) as (group, _), a_stranger(endpoint) as stranger:
        assert group.leader.reports() == []
        group.followers[0].send(Loaded(4))  # said again: its answer was on the way
        group.followers[0].report("a", "it is broken")
        group.followers[1].report("b", "x" * 10_000)
        stranger.send(msgspec.msgpack.encode(Report("c", "believe me")))
        reports: list[tuple[int, Report]] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(reports) < 2:
            assert time.monotonic() < deadline
            reports += group.leader.reports()
        expected = [(1, Report("a", "it is broken")), (2, Report("b", "x" * MAX_ERROR_CHARS))]
        assert sorted(reports, key=lambda report: report[0]) == expected


def test_a_follower_that_hears_nothing_waits_no_longer_than_it_wants(endpoint: str) -> None:
    with a_group(endpoint, [1, 1]) as (group, _):
        assert group.followers[0].receive(0.01) is None


@pytest.mark.parametrize("secret", ["", "g-1", "another secret"])
def test_who_does_not_know_the_secret_is_neither_counted_nor_told(endpoint: str, secret: str) -> None:
    """A follower of another generation, or a stranger who knows everything that /group shows."""
    with closing(FollowerChannel(endpoint, secret, 1)) as stranger:
        stranger.send(Loaded(1))
        with a_group(endpoint, [5, 4]) as (group, agreed):
            assert agreed == [4, 4]
            stranger.send(Loaded(1))
            group.leader.send(KeepAlive())
            assert group.followers[0].receive(DEADLINE_S) == KeepAlive()
            assert stranger.receive(0.1) is None


@contextmanager
def a_stranger(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    with closing(zmq.Context.instance().socket(zmq.DEALER)) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(endpoint)
        yield stranger


def test_nonsense_of_a_stranger_does_not_stop_the_leader(endpoint: str) -> None:
    with closing(LeaderChannel(endpoint, SECRET, 2)) as leader, a_stranger(endpoint) as stranger:
        stranger.send_multipart([b"two", b"frames"])
        assert leader._socket.poll(int(DEADLINE_S * 1000))  # it is the first that the leader will read
        with closing(FollowerChannel(endpoint, SECRET, 1)) as follower:
            follower.send(Loaded(4))
            assert leader.agree(5) == 4


def test_who_sends_more_than_a_follower_ever_does_is_hung_up_on(endpoint: str) -> None:
    with (
        closing(LeaderChannel(endpoint, SECRET, 2)),
        a_stranger(endpoint) as stranger,
        closing(stranger.get_monitor_socket(zmq.EVENT_DISCONNECTED)) as events,
    ):
        stranger.send(b"x" * (MAX_LOADED_BYTES + 1))
        assert events.poll(int(DEADLINE_S * 1000))


def test_a_port_that_is_taken_is_named(endpoint: str) -> None:
    with closing(LeaderChannel(endpoint, SECRET, 2)), pytest.raises(EngineFailed, match=f"bind .* {endpoint}"):
        LeaderChannel(endpoint, SECRET, 2)


@pytest.mark.parametrize("message", [KeepAlive(), StepInput(1, [], 0)], ids=lambda message: type(message).__name__)
def test_a_rank_that_missed_the_beginning_does_not_wait_for_it(endpoint: str, message: KeepAlive | StepInput) -> None:
    """As after a connection that broke between its Loaded and the answer to it."""
    with (
        closing(LeaderChannel(endpoint, SECRET, 2)) as leader,
        closing(FollowerChannel(endpoint, SECRET, 1)) as follower,
    ):
        follower.send(Loaded(5))
        assert leader.agree(9) == 5
        assert follower.receive(DEADLINE_S) is not None  # lost
        leader.send(message)
        with pytest.raises(EngineFailed, match="this rank was not told"):
            follower.agree(5)
