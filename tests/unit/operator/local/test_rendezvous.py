"""Which ports the groups of several pods get."""

import pytest

from glm_operator import names
from glm_operator.local.errors import LocalError
from glm_operator.local.rendezvous import BLOCK_SIZE, BLOCKS, assign_blocks


def all_free(_first: int) -> bool:
    return True


def test_no_two_blocks_overlap_and_none_holds_a_port_that_every_leader_has() -> None:
    in_blocks = [port for first in BLOCKS for port in range(first, first + BLOCK_SIZE)]
    assert len(in_blocks) == len(set(in_blocks))
    assert not set(in_blocks) & {names.HTTP_PORT, names.MANAGEMENT_PORT, names.COORDINATOR_PORT}
    assert max(in_blocks) < 32768


def test_every_group_gets_a_block_of_its_own() -> None:
    assert assign_blocks(["g0", "g1"], {}, [], all_free) == {"g0": BLOCKS[0], "g1": BLOCKS[1]}


def test_a_group_that_runs_keeps_its_block_and_its_ports_are_not_looked_at() -> None:
    held = {"g1": BLOCKS[0]}
    assigned = assign_blocks(["g0", "g1"], held, [], lambda first: first != BLOCKS[0])
    assert assigned == {"g0": BLOCKS[1], "g1": BLOCKS[0]}


def test_the_block_of_a_group_that_is_about_to_stop_is_not_given_away() -> None:
    assert assign_blocks(["g0"], {"old": BLOCKS[0]}, [], all_free) == {"g0": BLOCKS[1]}


def test_blocks_of_other_deployments_and_of_strangers_are_passed_over() -> None:
    assert assign_blocks(["g0"], {}, [BLOCKS[0]], lambda first: first != BLOCKS[1]) == {"g0": BLOCKS[2]}


def test_no_group_of_several_pods_needs_no_block() -> None:
    assert assign_blocks([], {}, BLOCKS, all_free) == {}


def test_when_no_block_is_left_the_group_is_named_with_what_to_do() -> None:
    with pytest.raises(LocalError, match=r"no ports are left for group g1: .* 64 in a row.*2 belong.*glm local down"):
        assign_blocks(["g0", "g1"], {}, [BLOCKS[0]], lambda first: first in BLOCKS[:2])
