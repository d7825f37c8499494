"""Whether the model computes numbers. A group that can answer nothing but errors must not serve.

Broken weights, or a broken device, show at the first token that is run, before requests come; a device that breaks
later, by the rows of its steps. One request whose row is broken is no such sign: it fails, and the others go on.

Shape suffixes: S rows, V vocabulary.
"""

from torch import Tensor

from glm_worker.errors import EngineFailed

BROKEN_STEPS = 8  # in a row, without one good row: as many requests, for each ends with its first broken row


def check_first(logits_SV: Tensor) -> None:
    """Raise EngineFailed where the model computes no number for a token of ours."""
    if not logits_SV.amax(dim=1).isfinite().all():
        raise EngineFailed("the model computes no numbers (NaN or infinity): its weights or this device are broken")


class Soundness:
    """Counts the steps in a row in which every sampled row was broken."""

    def __init__(self) -> None:
        self._num_broken_steps = 0

    def note(self, num_rows: int, num_broken: int) -> None:
        """Note what a step has sampled. Raises EngineFailed after BROKEN_STEPS that were broken as a whole."""
        if num_broken < num_rows:
            self._num_broken_steps = 0
        elif num_rows:
            self._num_broken_steps += 1
        if self._num_broken_steps >= BROKEN_STEPS:
            raise EngineFailed(
                f"the model computed no numbers (NaN or infinity) in {BROKEN_STEPS} steps in a row, for any request:"
                " its weights or a device are broken"
            )
