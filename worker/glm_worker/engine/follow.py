"""What every rank but rank 0 does for the life of a generation: decide as rank 0 does, run its part of each step."""

from collections import deque
from typing import NoReturn

from glm_worker.engine.channel import REPEAT_S, Committed, FollowerChannel, StepInput
from glm_worker.engine.engine import Engine
from glm_worker.errors import EngineFailed
from glm_worker.heartbeat import RankSlot


class FollowerRank:
    """A rank that hears of requests from rank 0 only."""

    def __init__(self, engine: Engine, channel: FollowerChannel, slot: RankSlot, rank: int) -> None:
        self._engine = engine
        self._channel = channel
        self._slot = slot
        self._rank = rank
        self._drawn: deque[list[list[int]] | None] = deque()  # in steps not committed; None: not drawn here

    def serve(self) -> NoReturn:
        """Follow until the process is killed or a step fails."""
        while True:
            message = self._channel.receive(REPEAT_S)
            if isinstance(message, StepInput):
                self.step(message)
            else:
                self._wait(0)
                self._slot.idle()

    def step(self, message: StepInput) -> None:
        """Do what rank 0 does in this step. Collective with it.

        Raises EngineFailed, before any collective, if a step was lost or this rank's plans are not those of rank 0.
        """
        last_step = self._engine.scheduler.step
        if message.step not in (last_step, last_step + 1):
            raise EngineFailed(
                f"rank {self._rank} has run step {last_step} and was sent step {message.step}: "
                "a step was lost on the way"
            )
        for event in message.events:
            if isinstance(event, Committed):
                self._commit(event.token_ids)
            else:
                self._engine.obey([event])
        plan = self._engine.plan(message.max_prefill_tokens)
        if (plan.step, self._engine.digest) != (message.step, message.digest):
            raise EngineFailed(
                f"plans differ: rank 0 is at step {message.step} with digest {message.digest:08x}, "
                f"rank {self._rank} at step {plan.step} with digest {self._engine.digest:08x}"
            )
        if plan.sequences:
            self._engine.launch(plan)
        self._wait(1 if plan.sequences and self._engine.can_be_passed else 0)

    def _commit(self, token_ids: list[list[int]]) -> None:
        """Commit what rank 0 sampled. Raises EngineFailed if this rank has fed something else to the step behind."""
        if not self._drawn:
            self._wait(self._engine.num_running - 1)
        drawn = self._drawn.popleft()
        if drawn is not None and drawn != token_ids:
            row = next(row for row, (own, its) in enumerate(zip(drawn, token_ids, strict=True)) if own != its)
            raise EngineFailed(
                f"rank {self._rank} drew {drawn[row]} where rank 0 drew {token_ids[row]}, for row {row} of"
                f" {len(drawn)}: their devices compute differently, so GLM_LOOK_AHEAD must be off"
            )
        self._engine.commit(token_ids)

    def _wait(self, most_left: int) -> None:
        """Wait for the steps that run, but for so many of the newest."""
        while self._engine.num_running > most_left:
            if self._engine.is_drawn:
                self._drawn.append(self._engine.wait_drawn().answers)
            else:
                self._engine.wait()
                self._drawn.append(None)
