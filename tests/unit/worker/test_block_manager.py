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
