"""Who has a place among the connections of a server, and when it says that it has none left."""

import pytest

from glm_edge.http.connections import Connections


class Client:
    def __init__(self) -> None:
        self.gave_way = False

    def give_way(self) -> None:
        self.gave_way = True


class World:
    def __init__(self, allowed: int, bound: int | None = None) -> None:
        self.allowed = allowed
        self.counts: list[int] = []
        self.told: list[str | None] = []
        self.connections = Connections(self.counts.append, self.told.append, bound=bound)

    def open(self, *, is_owed: bool = False) -> Client | None:
        """Return a client that has a place; None: there is none for it."""
        client = Client()
        if not self.connections.open(client, self.allowed):
            return None
        if is_owed:
            self.owe(client)
        return client

    def owe(self, *clients: Client, is_owed: bool = True) -> None:
        for client in clients:
            self.connections.note(client, self.allowed, is_owed=is_owed)

    def opened(self, num: int, *, is_owed: bool = False) -> list[Client]:
        clients = [self.open(is_owed=is_owed) for _ in range(num)]
        assert None not in clients
        return [client for client in clients if client is not None]

    def close(self, *clients: Client) -> None:
        for client in clients:
            self.connections.close(client, self.allowed)


@pytest.mark.parametrize(("most", "room_below"), [(1, 1), (2, 2), (10, 9), (11, 10), (30, 27), (2048, 1844)])
def test_it_is_full_where_all_are_owed_answers_and_has_room_again_below_nine_tenths(most: int, room_below: int) -> None:
    world = World(most)
    clients = world.opened(most)
    assert world.told == []
    world.owe(*clients)
    (reason,) = world.told
    assert reason is not None
    assert reason.startswith(f"answers are owed on {most} connections of clients")
    assert reason.endswith(f"when they are on fewer than {room_below}")
    world.owe(*clients[room_below:], is_owed=False)
    assert len(world.told) == 1
    world.close(clients[0])
    assert world.told[1:] == [None]


def test_it_is_told_once_however_many_answers_are_owed_and_given_at_the_bound() -> None:
    world = World(100)
    clients = world.opened(100, is_owed=True)
    for _ in range(5):
        world.owe(*clients[90:], is_owed=False)
        world.owe(*clients[90:])
    assert len(world.told) == 1
    assert world.connections.is_full


def test_a_newcomer_takes_the_place_of_who_has_been_owed_nothing_for_longest() -> None:
    world = World(3)
    first, second, third = world.opened(3)
    world.owe(first)
    world.owe(second)
    world.owe(second, is_owed=False)
    assert world.opened(1)
    assert [first.gave_way, second.gave_way, third.gave_way] == [False, False, True]
    assert world.opened(1)
    assert [first.gave_way, second.gave_way] == [False, True]
    assert world.counts[-1] == 3
    assert world.told == []


def test_idle_connections_keep_nobody_out_and_change_nothing_of_readiness() -> None:
    world = World(10)
    held = world.opened(10)
    newcomers = world.opened(25)
    assert all(client.gave_way for client in [*held, *newcomers[:15]])
    assert not any(client.gave_way for client in newcomers[15:])
    assert max(world.counts) == 10
    assert world.told == []


def test_where_an_answer_is_owed_on_each_a_newcomer_is_refused_and_not_counted() -> None:
    world = World(2)
    clients = world.opened(2, is_owed=True)
    assert [world.open(), world.open()] == [None, None]
    assert not any(client.gave_way for client in clients)
    world.close(clients[0])
    assert world.open() is not None
    assert world.open() is not None, "the one before it is owed nothing"
    assert world.open(is_owed=True) is not None
    assert world.open() is None
    assert max(world.counts) == 2


def test_who_gave_way_changes_nothing_any_more() -> None:
    world = World(1)
    (first,) = world.opened(1)
    world.opened(1)
    world.owe(first)
    world.close(first)
    assert world.counts == [1, 1]
    assert world.told == []


def test_a_lower_bound_than_the_servers_holds() -> None:
    world = World(2048, bound=2)
    first, second = world.opened(2)
    world.opened(1)
    assert [first.gave_way, second.gave_way] == [True, False]
    assert World(2, bound=2048).connections.most(2) == 2


def test_every_count_is_noted() -> None:
    world = World(3)
    clients = world.opened(3)
    world.close(*clients)
    assert world.counts == [1, 2, 3, 2, 1, 0]
