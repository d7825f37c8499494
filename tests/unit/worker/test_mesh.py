"""Mesh: every rank has a place, and together they hold everything exactly once."""

import pytest

from glm_worker.errors import ConfigError
from glm_worker.parallel.mesh import Axis, Mesh, divisors

DEGREES = [(world, tp) for world in (*range(1, 17), 24, 32, 64) for tp in divisors(world)]


@pytest.mark.parametrize(("world_size", "tensor_parallel"), DEGREES)
def test_tp_groups_are_contiguous_and_hold_every_rank_once(world_size: int, tensor_parallel: int) -> None:
    meshes = [Mesh(world_size, tensor_parallel, rank) for rank in range(world_size)]
    groups = meshes[0].tp_groups
    assert [rank for group in groups for rank in group] == list(range(world_size))
    for mesh in meshes:
        assert mesh.tp_groups == groups
        assert mesh.tp_group[mesh.tp_rank] == mesh.rank
        assert (mesh.size(Axis.TP), mesh.size(Axis.EP)) == (len(mesh.tp_group), world_size)


@pytest.mark.parametrize(("world_size", "tensor_parallel"), DEGREES)
def test_each_tp_group_holds_every_head_and_row_of_the_vocabulary_once(world_size: int, tensor_parallel: int) -> None:
    for group in Mesh(world_size, tensor_parallel).tp_groups:
        meshes = [Mesh(world_size, tensor_parallel, rank) for rank in group]
        assert [h for mesh in meshes for h in mesh.heads(2 * tensor_parallel, "heads")] == list(
            range(2 * tensor_parallel)
        )
        for vocab_size in (1, 7, 100, 101):
            assert [row for mesh in meshes for row in mesh.vocab(vocab_size)] == list(range(vocab_size))
            assert all(len(mesh.vocab(vocab_size)) <= mesh.vocab_share(vocab_size) for mesh in meshes)


@pytest.mark.parametrize("world_size", divisors(160))
def test_experts_are_whole_contiguous_and_held_once(world_size: int) -> None:
    shares = [Mesh(world_size, rank=rank).experts(160) for rank in range(world_size)]
    assert [expert for share in shares for expert in share] == list(range(160))
    assert {len(share) for share in shares} == {160 // world_size}


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 8, 131])
@pytest.mark.parametrize("tensor_parallel", [1, 2, 4, 8])
def test_equal_shares_joined_and_cut_at_the_end_are_the_vocabulary(vocab_size: int, tensor_parallel: int) -> None:
    joined: list[int | None] = []
    for rank in range(tensor_parallel):
        mesh = Mesh(tensor_parallel, tensor_parallel, rank)
        rows = mesh.vocab(vocab_size)
        joined += [*rows, *[None] * (mesh.vocab_share(vocab_size) - len(rows))]
    assert joined[:vocab_size] == list(range(vocab_size))


def test_a_tensor_parallel_degree_that_does_not_divide_the_ranks_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel 3 does not divide the group's 4 ranks; use 1, 2 or 4$"):
        Mesh(4, 3)


def test_heads_that_do_not_divide_are_refused_with_the_degrees_that_do() -> None:
    expected = r"tensor_parallel 8 does not divide num_key_value_heads 4; use 1, 2 or 4$"
    with pytest.raises(ConfigError, match=expected):
        Mesh(8, 8).heads(4, "num_key_value_heads")


def test_experts_that_do_not_divide_are_refused_with_the_rank_counts_that_do() -> None:
    with pytest.raises(ConfigError, match=r"3 ranks do not divide n_routed_experts 8; use 1, 2, 4 or 8 ranks$"):
        Mesh(3).experts(8)


@pytest.mark.parametrize(("world_size", "rank"), [(0, 0), (2, 2), (2, -1)])
def test_a_place_outside_the_group_is_refused(world_size: int, rank: int) -> None:
    with pytest.raises(ConfigError):
        Mesh(world_size, rank=rank)
