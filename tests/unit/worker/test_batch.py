"""Where tokens stand and where their keys and values go, whatever the steps before were."""

import random

import numpy as np
import pytest
import torch

from glm_worker.engine.batch import BatchBuilder, StepRoom
from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from glm_worker.request import SamplingParams
from glm_worker.scheduler.plan import ScheduledSequence
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

CPU = torch.device("cpu")
SMALL = StepRoom(num_tokens=2, num_sequences=1, num_blocks=1)


def a_run(
    start: int, token_ids: list[int], block_table: list[int], *, request_id: str = "a", is_sampled: bool = True
) -> ScheduledSequence:
    return ScheduledSequence(request_id, start, token_ids, block_table, is_sampled, SamplingParams())


def lists(batch: ForwardBatch) -> dict[str, object]:
    """Return the tensors as lists, by their fields' names, after a look at whether the host's arrays say the same."""
    names = ("token_ids_T", "positions_T", "slots_T", "logit_rows_S")
    names += ("cu_query_lens_B1", "context_lens_B", "block_tables_BM")  # type: ignore[assignment]
    for name in names:
        assert np.array_equal(getattr(batch, name).numpy(), getattr(batch.host, name))
    return {name: getattr(batch, name).tolist() for name in names}


def plainly(sequences: list[ScheduledSequence], block_size: int) -> ForwardBatch:
    """Return the same batch by the definition, in arrays of its own."""
    token_ids, positions, slots, cu_query_lens, logit_rows = [], [], [], [0], []
    for sequence in sequences:
        for position, token_id in enumerate(sequence.token_ids, start=sequence.start):
            token_ids.append(token_id)
            positions.append(position)
            slots.append(sequence.block_table[position // block_size] * block_size + position % block_size)
        cu_query_lens.append(len(token_ids))
        if sequence.is_sampled:
            logit_rows.append(len(token_ids) - 1)
    most = -(-max((s.end for s in sequences), default=0) // block_size)
    tables = [(s.block_table + [0] * most)[:most] for s in sequences]
    ends = [s.end for s in sequences]
    host = HostBatch.of(token_ids, positions, slots, cu_query_lens, ends, tables, logit_rows)
    return host.on_device(block_size, CPU)


def test_no_sequences_give_an_empty_batch() -> None:
    batch = BatchBuilder(4, CPU).build([])
    assert lists(batch) == {
        "token_ids_T": [],
        "positions_T": [],
        "slots_T": [],
        "logit_rows_S": [],
        "cu_query_lens_B1": [0],
        "context_lens_B": [],
        "block_tables_BM": [],
    }
    assert (batch.max_query_len, batch.max_context_len) == (0, 0)


def test_slots_follow_the_block_table_across_blocks() -> None:
    batch = lists(BatchBuilder(4, CPU).build([a_run(2, [50, 51, 52, 53], [7, 3])]))
    assert batch["positions_T"] == [2, 3, 4, 5]
    assert batch["slots_T"] == [30, 31, 12, 13]
    assert batch["context_lens_B"] == [6]


def test_decode_and_prefill_stand_side_by_side_and_only_sampled_ones_have_logits() -> None:
    decode = a_run(5, [9], [0, 2], request_id="d")
    chunk = a_run(0, [1, 2], [1], request_id="c", is_sampled=False)
    prompt = a_run(0, [3, 4, 5], [4], request_id="p")
    batch = BatchBuilder(4, CPU).build([decode, chunk, prompt])
    assert lists(batch) == {
        "token_ids_T": [9, 1, 2, 3, 4, 5],
        "positions_T": [5, 0, 1, 0, 1, 2],
        "slots_T": [9, 4, 5, 16, 17, 18],
        "logit_rows_S": [0, 5],
        "cu_query_lens_B1": [0, 1, 3, 6],
        "context_lens_B": [6, 2, 3],
        "block_tables_BM": [[0, 2], [1, 0], [4, 0]],
    }
    assert (batch.max_query_len, batch.max_context_len, batch.block_size) == (3, 6, 4)


@pytest.mark.parametrize("room", [None, SMALL, StepRoom(1000, 100, 100)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_every_step_of_a_long_run_is_as_if_it_were_the_first(seed: int, room: StepRoom | None) -> None:
    """Sequences come, grow, pause, change places, lose their blocks and get others, and end."""
    rng = random.Random(seed)
    builder = BatchBuilder(4, CPU, room)
    tables: dict[str, list[int]] = {}
    for step in range(300):
        if rng.random() < 0.3 and len(tables) < 12:
            tables[f"r{step}"] = []
        if tables and rng.random() < 0.2:
            del tables[rng.choice(sorted(tables))]
        if tables and rng.random() < 0.2:
            tables[rng.choice(sorted(tables))] = []  # preempted
        chosen = rng.sample(sorted(tables), k=rng.randint(0, len(tables))) if rng.random() < 0.3 else list(tables)
        sequences, decodes = [], rng.random() < 0.5
        for request_id in chosen:
            table = tables[request_id]
            start = max(0, 4 * len(table) - rng.randint(0, 3))
            length = 1 if decodes else rng.choice([1, 1, 1, 1, 2, 9])
            while 4 * len(table) < start + length + rng.choice([0, 0, 4]):
                table.append(rng.randrange(1000))
            ids = [rng.randrange(100) for _ in range(length)]
            sequences.append(a_run(start, ids, table, request_id=request_id, is_sampled=decodes or rng.random() < 0.8))
        assert lists(builder.build(sequences)) == lists(plainly(sequences, 4))


def test_the_arrays_stay_where_they_are_while_steps_fit_the_room() -> None:
    builder, table = BatchBuilder(4, CPU, StepRoom(16, 4, 4)), [3]
    first = builder.build([a_run(0, [1, 2, 3], table)])
    places = [first.token_ids_T.data_ptr(), first.slots_T.data_ptr(), first.block_tables_BM.data_ptr()]
    table.append(5)
    second = builder.build([a_run(3, [4], table), a_run(0, [5] * 15, [0, 1, 2, 9], request_id="b")])
    assert [second.token_ids_T.data_ptr(), second.slots_T.data_ptr(), second.block_tables_BM.data_ptr()] == places


def test_steps_of_single_tokens_share_their_tensors_until_they_have_other_shapes() -> None:
    builder, table, other = BatchBuilder(2, CPU, SMALL), [3], [7, 8]
    first = builder.build([a_run(0, [1], table)])
    second = builder.build([a_run(1, [2], table)])
    assert second.has_arrays_of(first)
    assert lists(second)["slots_T"] == [7]
    table.append(5)
    longer = builder.build([a_run(2, [3], table)])
    assert not longer.has_arrays_of(second)
    two = builder.build([a_run(3, [4], table), a_run(2, [1], other, request_id="b")])
    assert not two.has_arrays_of(longer)
    assert lists(two)["slots_T"] == [11, 16]


def test_of_a_table_that_stays_only_what_was_appended_is_written() -> None:
    """Seen by what the array holds that the list does not say."""
    builder, table, other = BatchBuilder(1, CPU, SMALL), [3, 4], [7]
    batch = builder.build([a_run(1, [1], table), a_run(0, [1], other, request_id="b")])
    batch.host.block_tables_BM[0, 0] = 99
    table.append(5)
    batch = builder.build([a_run(0, [1], other, request_id="b"), a_run(2, [1], table)])
    assert batch.block_tables_BM.tolist() == [[7, 0, 0], [99, 4, 5]]
