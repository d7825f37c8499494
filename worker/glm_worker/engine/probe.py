"""Whether this machine computes a sequence to the same bits however it is divided into steps: tried, not believed.

The layers are made so that it should (kernels/fixed_order.py). But which kernel a library takes is its own business and
the CPU's, so every generation looks: the same positions alone, side by side, as prefill, in chunks and as decode.
"""

import torch
from torch import Tensor

from glm_worker.engine.runner import Runner
from glm_worker.request import SamplingParams
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence

_LENGTHS = (3, 18, 37, 210)  # few, more than a vector, a few blocks, more than a product adds up in one go
_SAMPLING = SamplingParams(temperature=0)


def is_deterministic(runner: Runner, limits: SchedulerLimits, vocab_size: int) -> bool:
    """Return whether logits are equal to the bit on all ways. Collective; it writes to blocks before anybody owns them.

    Where the KV cache holds too little to try the longest ways, shorter ones are tried.
    """
    probe = _Probe(runner, limits, vocab_size)
    if not probe.lengths:
        return False
    last, end = len(probe.lengths) - 1, probe.lengths[-1]
    together = probe.run([(number, 0, length) for number, length in enumerate(probe.lengths)])
    is_equal = torch.equal(together, probe.run([(n, length - 1, length) for n, length in enumerate(probe.lengths)]))
    probe.run([(last, end // 2, end - 1)])  # a chunk behind what a prefill has left
    is_equal &= torch.equal(together[last:], probe.run([(last, end - 1, end)]))
    for position in range(probe.lengths[0]):
        first = probe.run([(0, position, position + 1)])
    is_equal &= torch.equal(together[:1], first)
    runner.expert_tokens_by_rank()  # what no request asked for counts for nobody
    return is_equal


class _Probe:
    """Sequences of some tokens in blocks of their own."""

    def __init__(self, runner: Runner, limits: SchedulerLimits, vocab_size: int) -> None:
        self._runner = runner
        self._vocab_size = vocab_size
        self.lengths: list[int] = []
        self._tables: list[list[int]] = []
        num_blocks = 0
        for length in _LENGTHS:
            needed = blocks_for(length, limits.block_size)
            if num_blocks + needed <= limits.num_blocks and length <= limits.max_model_len:
                self.lengths.append(length)
                self._tables.append(list(range(num_blocks, num_blocks + needed)))
                num_blocks += needed

    def run(self, parts: list[tuple[int, int, int]]) -> Tensor:
        """Compute positions start to end of sequences in one step; return the logits of each end."""
        sequences = tuple(
            ScheduledSequence(
                f"probe-{number}",
                start,
                [(7 * number + 31 * position) % self._vocab_size for position in range(start, end)],
                self._tables[number],
                is_sampled=True,
                sampling=_SAMPLING,
            )
            for number, start, end in parts
        )
        return self._runner.run(ScheduledBatch(0, sequences, (), ()))
