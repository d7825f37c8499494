"""Blocks are handed out whole, never twice, and come back when a sequence ends."""

import pytest

from glm_worker.errors import EngineFailed
from glm_worker.scheduler.block_manager import BlockManager, blocks_for


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_last_block_may_be_partly_filled(num_tokens: int, num_blocks: int) -> None:
    assert blocks_for(num_tokens, block_size=4) == num_blocks


def test_growing_keeps_the_blocks_held_and_adds_only_what_is_missing() -> None:
    manager = BlockManager(num_blocks=4, block_size=4)
    assert manager.grow("a", 4)
    assert manager.grow("b", 1)
    assert manager.grow("a", 5)
    assert list(manager.table("a")) == [0, 2]
    assert manager.grow("a", 8)  # fits the blocks held
    assert (list(manager.table("a")), manager.num_used, manager.num_free) == ([0, 2], 3, 1)
    manager.check()


def test_a_refused_growth_changes_nothing() -> None:
    manager = BlockManager(num_blocks=2, block_size=4)
    assert manager.grow("a", 4)
    assert not manager.grow("b", 5)
    assert (list(manager.table("b")), manager.num_free, manager.holders()) == ([], 1, {"a"})
    manager.check()


def test_freed_blocks_are_reused_oldest_first() -> None:
    manager = BlockManager(num_blocks=3, block_size=1)
    for request_id in "abc":
        manager.grow(request_id, 1)
    manager.free("b")
    manager.free("a")
    manager.grow("d", 2)
    assert list(manager.table("d")) == [1, 0]


def test_freeing_twice_is_harmless() -> None:
    manager = BlockManager(num_blocks=2, block_size=1)
    manager.grow("a", 2)
    manager.free("a")
    manager.free("a")
    assert manager.num_free == 2
    manager.check()


def test_check_finds_a_block_in_two_tables() -> None:
    manager = BlockManager(num_blocks=2, block_size=1)
    manager.grow("a", 1)
    manager._tables["b"] = [0]
    with pytest.raises(EngineFailed, match="do not add up"):
        manager.check()


def test_check_finds_a_lost_block() -> None:
    manager = BlockManager(num_blocks=2, block_size=1)
    manager._free.pop()
    with pytest.raises(EngineFailed, match="do not add up"):
        manager.check()


def key(name: str) -> bytes:
    return name.encode()


def a_filled(num_blocks: int = 4) -> BlockManager:
    """A sequence "a" holds blocks 0 and 1, which others find as x and y."""
    manager = BlockManager(num_blocks, block_size=4)
    assert manager.admit("a", 8)
    for block, name in zip(manager.table("a"), "xy", strict=True):
        manager.publish(block, key(name))
    return manager


def found(manager: BlockManager, names: str) -> list[int]:
    return manager.found(map(key, names))


def test_a_published_block_is_shared_while_it_is_held_and_costs_nothing() -> None:
    manager = a_filled()
    assert manager.num_to_take(9, found(manager, "xyz")) == 1
    assert manager.admit("b", 9, found(manager, "xyz"))
    assert (list(manager.table("b")), manager.num_used) == ([0, 1, 2], 3)
    manager.check()
    manager.free("a")
    assert (manager.num_used, manager.num_cached) == (3, 0)
    manager.check()


def test_what_nobody_holds_stays_found_and_counts_as_free() -> None:
    manager = a_filled()
    manager.free("a")
    assert (manager.num_used, manager.num_free, manager.num_cached) == (0, 4, 2)
    assert manager.admit("b", 5, found(manager, "x"))
    assert (list(manager.table("b")), manager.num_cached) == ([0, 2], 1)
    manager.check()


def test_the_chain_ends_at_the_first_block_that_nobody_has() -> None:
    assert found(a_filled(), "xzy") == [0]


def test_empty_blocks_go_before_cached_ones_and_of_these_the_end_of_the_oldest_first() -> None:
    manager = a_filled()
    manager.free("a")
    manager.admit("b", 12)
    assert list(manager.table("b")) == [2, 3, 1]
    assert found(manager, "xy") == [0]
    manager.check()


def test_being_found_makes_a_block_young() -> None:
    manager = BlockManager(2, block_size=1)
    for name in "ab":
        manager.admit(name, 1)
        manager.publish(manager.table(name)[0], key(name))
        manager.free(name)
    manager.admit("c", 1, found(manager, "a"))
    manager.free("c")
    manager.admit("d", 1)
    assert (found(manager, "a"), found(manager, "b")) == ([0], [])


def test_of_two_blocks_that_hold_the_same_the_first_is_found() -> None:
    manager = a_filled()
    manager.admit("b", 4)
    manager.publish(manager.table("b")[0], key("x"))
    assert found(manager, "x") == [0]
    manager.free("b")
    assert manager.num_cached == 0
    manager.check()


def test_what_is_held_is_never_evicted() -> None:
    manager = a_filled()
    assert not manager.admit("b", 12)
    assert not manager.admit("b", 20, found(manager, "xy"))
    assert (found(manager, "xy"), manager.holders()) == ([0, 1], {"a"})
    manager.check()


def test_broken_blocks_are_found_by_nobody_and_unclean_once_nobody_holds_them() -> None:
    manager = a_filled()
    manager.admit("b", 9, found(manager, "xy"))
    manager.free("b", is_broken=True)
    assert (found(manager, "x"), manager.take_unclean()) == ([], (2,))
    manager.publish(0, key("x"))  # by "a", which holds it still
    assert found(manager, "x") == []
    manager.check()
    manager.free("a")
    assert (manager.take_unclean(), manager.take_unclean(), manager.num_free) == ((1, 0), (), 4)
    manager.check()


@pytest.mark.parametrize("broken", ["refs", "key", "cached"])
def test_check_finds_references_keys_and_cached_blocks_that_are_wrong(broken: str) -> None:
    manager = a_filled()
    if broken == "refs":
        manager._num_refs[0] = 2
    elif broken == "key":
        manager._key_of[2] = key("z")
    else:
        manager._free.remove(3)
        manager._cached[3] = None
    with pytest.raises(EngineFailed, match="do not add up"):
        manager.check()
