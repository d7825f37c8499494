"""The step channel over real sockets. Each end runs in a thread of its own."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pytest
import zmq

from glm_worker.engine.channel import FollowerChannel, KeepAlive, LeaderChannel, Loaded, StepInput
from glm_worker.errors import EngineFailed
from glm_worker.messages import Cancel, Submit
from integration.engine_group import a_request

DEADLINE_S = 60.0
HOST = "127.0.0.1"


class Group:
    """The channels of the ranks of one generation."""

    def __init__(self, port: int, generation: str, num_ranks: int) -> None:
        self._open = ExitStack()
        self._num_ranks = num_ranks
        self._place = (port, generation)
        self.followers = [FollowerChannel(HOST, port, generation, rank) for rank in range(1, num_ranks)]
        for follower in self.followers:
            self._open.callback(follower.close)

    def agree(self, blocks: list[int]) -> list[int]:
        """Let rank r say that it has room for blocks[r]; return what each rank has agreed to."""
        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(f.agree, n) for f, n in zip(self.followers, blocks[1:], strict=True)]
            port, generation = self._place
            self.leader = LeaderChannel(HOST, port, generation, self._num_ranks)  # after the followers began to try
            self._open.callback(self.leader.close)
            return [self.leader.agree(blocks[0]), *(future.result(DEADLINE_S) for future in waiting)]

    def close(self) -> None:
        self._open.close()


@pytest.fixture(autouse=True)
def no_zmq_threads_are_left() -> Iterator[None]:
    """Other tests fork, which is safe only beside no threads."""
    yield
    zmq.Context.instance().term()


@pytest.fixture
def port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


@contextmanager
def a_group(port: int, blocks: list[int], generation: str = "g-1") -> Iterator[tuple[Group, list[int]]]:
    with closing(Group(port, generation, len(blocks))) as group:
        yield group, group.agree(blocks)


@pytest.mark.parametrize("blocks", [[5], [5, 9], [9, 5], [7, 8, 6, 9]])
def test_all_ranks_agree_on_the_least_number_of_blocks(port: int, blocks: list[int]) -> None:
    with a_group(port, blocks) as (_, agreed):
        assert agreed == [min(blocks)] * len(blocks)


def test_every_follower_receives_every_message_in_order(port: int) -> None:
    commands = [Submit("g-1", a_request("a", [1, 2])), Cancel("g-1", "a")]
    messages = [KeepAlive(), StepInput(1, [], commands, 0xFFFFFFFF), StepInput(2, [7, 8], [], 0)]
    with a_group(port, [1, 1, 1]) as (group, _):
        for message in messages:
            group.leader.send(message)
        for follower in group.followers:
            assert [follower.receive(DEADLINE_S) for _ in messages] == messages


def test_a_follower_that_hears_nothing_waits_no_longer_than_it_wants(port: int) -> None:
    with a_group(port, [1, 1]) as (group, _):
        assert group.followers[0].receive(0.01) is None


def test_a_follower_of_another_generation_is_neither_counted_nor_told(port: int) -> None:
    with closing(FollowerChannel(HOST, port, "g-0", 1)) as stranger:
        stranger.send(Loaded(1))
        with a_group(port, [5, 4]) as (group, agreed):
            assert agreed == [4, 4]
            group.leader.send(KeepAlive())
            assert group.followers[0].receive(DEADLINE_S) == KeepAlive()
            assert stranger.receive(0.1) is None


def test_a_port_that_is_taken_is_named(port: int) -> None:
    with closing(socket.create_server((HOST, port))), pytest.raises(EngineFailed, match=f"bind .* {HOST}:{port}"):
        LeaderChannel(HOST, port, "g-1", 2)
