"""The largest step has all the sequences and tokens that a step may have, and could be a step."""

import pytest

from glm_worker.engine.trial import largest_step
from glm_worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("max_batch_tokens", "max_num_seqs", "model_len", "num_tokens"),
    [(2048, 64, 4096, 2048), (2048, 64, 100, 2048), (2048, 2, 100, 200), (16, 64, 4096, 16), (16, 1, 1, 1)],
)
def test_the_largest_step(max_batch_tokens: int, max_num_seqs: int, model_len: int, num_tokens: int) -> None:
    settings = WorkerSettings(model="/nowhere", max_batch_tokens=max_batch_tokens, max_num_seqs=max_num_seqs)
    step = largest_step(settings, model_len)
    assert step.num_tokens == num_tokens
    assert len(step.sampled) == len(step.sequences) == min(max_num_seqs, max_batch_tokens)
    assert all(1 <= len(sequence.token_ids) <= model_len for sequence in step.sequences)
    assert all(len(s.block_table) * settings.block_size >= s.end for s in step.sequences)
    block_ids = [block for sequence in step.sequences for block in sequence.block_table]
    assert len(block_ids) == len(set(block_ids))
