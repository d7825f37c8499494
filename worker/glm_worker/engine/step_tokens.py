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
    ended = [row for row, sequence in enumerate(everyone) if sequence.finish_reason is not None]
    rows: Sequence[int] = range(len(everyone))
    if ended:
        rows = [row for row in rows if everyone[row].finish_reason is None]
    sequences = [everyone[row] for row in rows]
    if engine.is_drawn:
        drawn = engine.wait_drawn()
        place_of = {row: place for place, row in enumerate(rows)}
        failed = {place_of[row]: BROKEN for row in drawn.broken if row in place_of}
        return StepTokens(drawn.answers, sequences, Sampled([drawn.token_ids[row] for row in rows], failed=failed))
    logits_SV = engine.wait()
    sampled = sampler.sample(logits_SV[rows] if ended else logits_SV, sequences)
    token_ids = [[token_id] for token_id in sampled.token_ids]
    for place in sampled.failed:
        token_ids[place] = []  # or what counts for nothing might end it as if it had not failed
    for row in ended:  # ascending, so each finds its place
        token_ids.insert(row, [])
    return StepTokens(token_ids, sequences, sampled)
