"""When a server is full of connections, and when it has room again."""

import pytest

from glm_edge.http.connections import Connections


class World:
    def __init__(self, most: int) -> None:
        self.most = most
        self.counts: list[int] = []
        self.told: list[str | None] = []
        self.connections = Connections(self.counts.append, self.told.append)

    def count(self, *nums: int) -> list[str | None]:
        """Return what is told while so many are open, one after the other."""
        before = len(self.told)
        for num in nums:
            self.connections.count(num, self.most)
        return self.told[before:]


@pytest.mark.parametrize(("most", "room_below"), [(1, 1), (2, 2), (10, 9), (11, 10), (30, 27), (2048, 1844)])
def test_it_is_full_at_the_bound_and_has_room_again_below_nine_tenths_of_it(most: int, room_below: int) -> None:
    world = World(most)
    assert world.count(*range(most)) == []
    (reason,) = world.count(most)
    assert reason is not None
    assert reason.startswith(f"{most} connections of clients are open")
    assert reason.endswith(f"fewer than {room_below} are")
    assert world.count(*range(most, room_below - 1, -1)) == []
    assert world.count(room_below - 1) == [None]


def test_it_is_told_once_however_many_come_and_go_at_the_bound() -> None:
    world = World(100)
    assert len(world.count(*[100, 101, 100, 99, 95, 100, 91, 90] * 5)) == 1
    assert world.connections.is_full
    assert world.count(89, 90, 99) == [None]
    assert len(world.count(100)) == 1


def test_every_count_is_noted() -> None:
    world = World(3)
    world.count(1, 2, 3, 4, 0)
    assert world.counts == [1, 2, 3, 4, 0]
