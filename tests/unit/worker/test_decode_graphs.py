"""Which graph a decode step takes and what it finds there, with a capture that only calls the function again."""

import numpy as np
import pytest
import torch
from torch import Tensor

from glm_worker.model.decode_graphs import Compute, DecodeGraphs, GraphRoom, graph_sizes, size_for
from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

CPU, ROOM = torch.device("cpu"), GraphRoom(num_seqs=6, num_blocks=3, block_size=16)


class Device:
    """A capture that keeps what it was given, and a model whose logits show all that a graph reads."""

    def __init__(self) -> None:
        self.captured = 0
        self.replays: list[int] = []  # rows of each
        self.rows = 0

    def capture(self, compute: Compute) -> Compute:
        self.captured += 1
        compute()

        def replay() -> Tensor:
            logits = compute()
            self.replays.append(self.rows)
            return logits

        return replay

    def logits(self, batch: ForwardBatch) -> Tensor:
        self.rows = len(batch.token_ids_T)
        columns = [batch.token_ids_T, batch.positions_T, batch.slots_T, batch.context_lens_B, batch.logit_rows_S]
        reached = torch.arange(batch.block_tables_BM.shape[1]) * batch.block_size < batch.context_lens_B[:, None]
        columns.append((batch.block_tables_BM * reached).sum(1))
        self.seen = torch.stack(columns, dim=1).float()
        return self.seen


def a_decode(num_seqs: int, num_blocks: int = 2, **changes: list[int]) -> ForwardBatch:
    numbers = list(range(num_seqs))
    return HostBatch.of(
        token_ids=[100 + n for n in numbers],
        positions=[15 + n for n in numbers],
        slots=[7 + n for n in numbers],
        cu_query_lens=changes.get("cu_query_lens", [*numbers, num_seqs]),
        context_lens=[16 + n for n in numbers],
        block_tables=[[n + 1] * num_blocks for n in numbers],
        logit_rows=changes.get("logit_rows", numbers),
    ).on_device(16, CPU)


def some_graphs(device: Device) -> DecodeGraphs:
    graphs = DecodeGraphs(device.logits, device.capture, ROOM, CPU)
    graphs.capture(lambda done, total: None)
    return graphs


@pytest.mark.parametrize(
    ("most", "sizes"), [(0, ()), (1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (64, (1, 2, 4, 8, 16, 32, 64))]
)
def test_sizes_are_powers_of_two_and_the_most(most: int, sizes: tuple[int, ...]) -> None:
    assert graph_sizes(most) == sizes


@pytest.mark.parametrize(("num_seqs", "size"), [(0, None), (1, 1), (3, 4), (4, 4), (5, 6), (7, None)])
def test_a_step_takes_the_smallest_graph_that_has_room(num_seqs: int, size: int | None) -> None:
    assert size_for(num_seqs, (1, 2, 4, 6)) == size


def test_graphs_are_captured_smallest_first_and_progress_is_told() -> None:
    device, told = Device(), []
    graphs = DecodeGraphs(device.logits, device.capture, ROOM, CPU)
    graphs.capture(lambda done, total: told.append((done, total, graphs.sizes)))
    assert told == [(0, 4, ()), (1, 4, (1,)), (2, 4, (1, 2)), (3, 4, (1, 2, 4)), (4, 4, (1, 2, 4, 6))]
    assert device.captured == 4


def test_nothing_is_captured_that_would_store_or_read_a_cache() -> None:
    device = Device()
    some_graphs(device)
    assert (device.seen[:, 2] == -1).all()  # slots
    assert not device.seen[:, 3].any()  # contexts


@pytest.mark.parametrize("num_seqs", [1, 2, 3, 5, 6])
def test_a_graph_computes_what_the_step_says(num_seqs: int) -> None:
    device = Device()
    graphs, batch = some_graphs(device), a_decode(num_seqs)
    found = graphs.run(batch)
    assert found is not None
    assert torch.equal(found, Device().logits(batch))
    assert device.replays == [size_for(num_seqs, graphs.sizes)]


def test_rows_of_a_larger_step_before_do_not_stay() -> None:
    device = Device()
    graphs = some_graphs(device)
    graphs.run(a_decode(6, num_blocks=3))
    found = graphs.run(a_decode(5, num_blocks=1))
    assert found is not None
    assert len(found) == 5
    assert device.seen[5, 2:4].tolist() == [-1, 0]


@pytest.mark.parametrize(
    "batch",
    [
        HostBatch.of([], [], [], [0], [], [], []).on_device(16, CPU),
        a_decode(7),
        a_decode(3, logit_rows=[0, 2]),
        HostBatch.of([1, 2], [0, 1], [0, 1], [0, 2], [2], [[0]], [1]).on_device(16, CPU),
    ],
    ids=["nothing", "too many", "one is not sampled", "a prompt"],
)
def test_other_steps_have_no_graph(batch: ForwardBatch) -> None:
    device = Device()
    assert some_graphs(device).run(batch) is None
    assert device.replays == []


def test_a_captured_batch_knows_nothing_of_the_host() -> None:
    seen: list[ForwardBatch] = []
    graphs = DecodeGraphs(lambda batch: seen.append(batch) or torch.zeros(1, 1), lambda f: f, ROOM, CPU)  # type: ignore[func-returns-value]
    graphs.capture(lambda done, total: None)
    graphs._graphs[2]()
    assert all(len(np.atleast_1d(array)) == 0 for array in seen[0].host.arrays)
