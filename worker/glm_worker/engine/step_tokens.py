"""The tokens of a step at rank 0, wherever they were drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from glm_worker.engine.engine import Engine
from glm_worker.engine.sampling.sampler import BROKEN, Sampled, Sampler
from glm_worker.scheduler.sequence import SequenceState


@dataclass(frozen=True, slots=True)
class StepTokens:
    """What was sampled of a step. Who ended while it ran gets nothing of it, and is no row of `sampled`."""

    token_ids: list[list[int]]  # for every row of the step, as ranks commit them
    sequences: Sequence[SequenceState]  # that have not ended
    sampled: Sampled  # of these


def sample_oldest(engine: Engine, sampler: Sampler) -> StepTokens:
    """Wait for the oldest step and return its tokens: those that the device drew, or else what the sampler says."""
    everyone = engine.scheduler.sampled
    rows = [row for row, sequence in enumerate(everyone) if sequence.finish_reason is None]
    sequences = [everyone[row] for row in rows]
    if engine.is_drawn:
        drawn = engine.wait_drawn()
        place_of = {row: place for place, row in enumerate(rows)}
        failed = {place_of[row]: BROKEN for row in drawn.broken if row in place_of}
        return StepTokens(drawn.answers, sequences, Sampled([drawn.token_ids[row] for row in rows], failed=failed))
    logits_SV = engine.wait()
    sampled = sampler.sample(logits_SV if len(rows) == len(everyone) else logits_SV[rows], sequences)
    token_ids: list[list[int]] = [[] for _ in everyone]
    for place, row in enumerate(rows):
        if place not in sampled.failed:  # or what counts for nothing might end it as if it had not failed
            token_ids[row] = [sampled.token_ids[place]]
    return StepTokens(token_ids, sequences, sampled)
