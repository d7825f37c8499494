"""Where tokens stand and where their keys and values go."""

from glm_worker.engine.batch import BatchIndices, build
from glm_worker.request import SamplingParams
from glm_worker.scheduler.plan import ScheduledSequence


def a_run(start: int, token_ids: list[int], block_table: list[int], *, is_sampled: bool = True) -> ScheduledSequence:
    return ScheduledSequence("a", start, token_ids, block_table, is_sampled, SamplingParams())


def test_no_sequences_give_an_empty_batch() -> None:
    assert build([], block_size=4) == BatchIndices()


def test_slots_follow_the_block_table_across_blocks() -> None:
    batch = build([a_run(2, [50, 51, 52, 53], [7, 3])], block_size=4)
    assert batch.positions == [2, 3, 4, 5]
    assert batch.slots == [30, 31, 12, 13]
    assert batch.context_lens == [6]


def test_decode_and_prefill_stand_side_by_side_and_only_sampled_ones_have_logits() -> None:
    decode, chunk, prompt = a_run(5, [9], [0, 2]), a_run(0, [1, 2], [1], is_sampled=False), a_run(0, [3, 4, 5], [4])
    batch = build([decode, chunk, prompt], block_size=4)
    assert batch == BatchIndices(
        token_ids=[9, 1, 2, 3, 4, 5],
        positions=[5, 0, 1, 0, 1, 2],
        slots=[9, 4, 5, 16, 17, 18],
        cu_query_lens=[0, 1, 3, 6],
        context_lens=[6, 2, 3],
        block_tables=[[0, 2], [1], [4]],
        logit_rows=[0, 5],
    )
