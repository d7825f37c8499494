"""Sums and joins over ranks that share memory; the ranks are threads here."""

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import pytest
import torch
from torch import Tensor

from glm_worker.kernels.cpu.exchange import NUM_FLOATS, Exchange, RankLost, SharedMemory

MANY, LARGE = 300, 2 * NUM_FLOATS + 50
"""Sums in a row, of several pieces each: both places of a rank are used again and again, and take a while to read."""

DEADLINE_S = 60.0


def on_ranks(folder: Path, num_ranks: int, run: Callable[[Exchange, int], list[Tensor]]) -> list[list[Tensor]]:
    """Return what each rank has returned; each has the file mapped for itself."""

    def of(rank: int) -> list[Tensor]:
        exchange = Exchange(SharedMemory(folder / "exchange", num_ranks), rank, [os.getpid()] * num_ranks)
        try:
            return run(exchange, rank)
        finally:
            exchange.close()

    found: list[Future[list[Tensor]]] = [Future() for _ in range(num_ranks)]
    for rank in range(num_ranks):  # daemons: one that waits for another that has failed holds nothing up
        Thread(target=lambda rank=rank: _into(found[rank], of, rank), daemon=True).start()
    return [each.result(DEADLINE_S) for each in found]


def _into(future: Future[list[Tensor]], of: Callable[[int], list[Tensor]], rank: int) -> None:
    try:
        future.set_result(of(rank))
    except BaseException as error:  # noqa: BLE001 - the test raises it
        future.set_exception(error)


def addends(rank: int, size: int, seed: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1000 * seed + rank))


def in_order(num_ranks: int, size: int, seed: int) -> Tensor:
    found = addends(0, size, seed)
    for rank in range(1, num_ranks):
        found += addends(rank, size, seed)
    return found


def summed(sizes: list[int], late_s: Callable[[int], float]) -> Callable[[Exchange, int], list[Tensor]]:
    """Return what a rank does: a sum of each size, each after a while."""

    def run(exchange: Exchange, rank: int) -> list[Tensor]:
        found = []
        for seed, size in enumerate(sizes):
            if pause_s := late_s(rank):
                time.sleep(pause_s)
            x = addends(rank, size, seed)
            exchange.add_up(x)
            found.append(x)
        return found

    return run


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("sizes", [[0, 1, 7, 64, 1000], [NUM_FLOATS + more for more in (-1, 0, 1, 2 * NUM_FLOATS + 5)]])
def test_every_rank_gets_the_bits_of_the_sum_in_the_order_of_ranks(
    tmp_path: Path, num_ranks: int, sizes: list[int]
) -> None:
    expected = [in_order(num_ranks, size, seed) for seed, size in enumerate(sizes)]
    for found in on_ranks(tmp_path, num_ranks, summed(sizes, lambda _: 0.0)):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("cols", [1, 5, NUM_FLOATS // 2 + 3, NUM_FLOATS + 9])
def test_every_rank_gets_the_parts_of_all_joined_row_by_row(tmp_path: Path, num_ranks: int, cols: int) -> None:
    def part(rank: int, rows: int) -> Tensor:
        return addends(rank, rows * cols, rows).view(rows, cols)

    def run(exchange: Exchange, rank: int) -> list[Tensor]:
        found = [exchange.join(part(rank, rows)) for rows in (0, 1, 2, 7)]
        exchange.add_up(own := addends(rank, 9, 9))  # the same places, in their turn
        return [*found, own]

    expected = [torch.cat([part(rank, rows) for rank in range(num_ranks)], dim=1) for rows in (0, 1, 2, 7)]
    for found in on_ranks(tmp_path, num_ranks, run):
        assert all(torch.equal(*pair) for pair in zip(found, [*expected, in_order(num_ranks, 9, 9)], strict=True))


@pytest.mark.parametrize("slow", [0, 1, 2, None], ids=["first", "second", "third", "any"])
def test_no_rank_reads_what_another_has_overwritten_whoever_is_late(tmp_path: Path, slow: int | None) -> None:
    rng = random.Random(0)
    num_sums = MANY if slow is None else MANY // 10

    def late_s(rank: int) -> float:
        return rng.choice((0.0, 0.0, 1e-4)) if slow is None else 5e-4 * (rank == slow)  # longer than ranks spin

    expected = [in_order(3, LARGE, seed) for seed in range(num_sums)]
    for found in on_ranks(tmp_path, 3, summed([LARGE] * num_sums, late_s)):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_rank_that_has_died_is_named_also_before_anybody_waits_for_it(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    exchange = Exchange(SharedMemory(tmp_path / "exchange", 2), 0, [os.getpid(), child])
    try:
        with pytest.raises(RankLost, match="rank 1"):
            exchange.add_up(torch.ones(3))
    finally:
        exchange.close()
        os.waitpid(child, 0)


def test_what_a_rank_has_said_before_it_died_counts(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            theirs = Exchange(SharedMemory(tmp_path / "exchange", 2), 1, [os.getppid(), os.getpid()])
            theirs.add_up(torch.full((3,), 2.0))
        finally:
            os._exit(0)
    exchange = Exchange(SharedMemory(tmp_path / "exchange", 2), 0, [os.getpid(), child])
    x = torch.ones(3)
    exchange.add_up(x)
    assert x.tolist() == [3.0] * 3
    os.waitpid(child, 0)
    with pytest.raises(RankLost, match="rank 1"):
        exchange.add_up(x)
    exchange.close()


def test_ranks_that_give_different_sizes_are_told_so_and_wait_for_nobody(tmp_path: Path) -> None:
    def run(exchange: Exchange, rank: int) -> list[Tensor]:
        with pytest.raises(RankLost, match=f"rank {1 - rank} of those that exchange gave another number of values"):
            exchange.add_up(torch.ones(5 + rank))
        return []

    assert on_ranks(tmp_path, 2, run) == [[], []]


def test_rows_that_lie_apart_are_summed_in_place(tmp_path: Path) -> None:
    def run(exchange: Exchange, rank: int) -> list[Tensor]:
        whole = torch.full((4, 6), float(rank))
        exchange.add_up(whole[:, ::2])
        return [whole]

    for rank, (found,) in enumerate(on_ranks(tmp_path, 2, run)):
        assert (found[:, ::2] == 1).all()
        assert (found[:, 1::2] == rank).all()
