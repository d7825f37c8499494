"""What every rank but rank 0 does for the life of a generation: decide as rank 0 does, run its part of each step."""

from typing import NoReturn

from glm_worker.engine.channel import REPEAT_S, FollowerChannel, StepInput
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

    def serve(self) -> NoReturn:
        """Follow until the process is killed or a step fails."""
        while True:
            message = self._channel.receive(REPEAT_S)
            if isinstance(message, StepInput):
                self.step(message)
            else:
                self._slot.idle()

    def step(self, message: StepInput) -> None:
        """Do what rank 0 does in this step. Collective with it.

        Raises EngineFailed, before any collective, if a step was lost or this rank's plans are not those of rank 0.
        """
        last_step = self._engine.scheduler.step
        if message.step != last_step + 1:
            raise EngineFailed(
                f"rank {self._rank} has run step {last_step} and was sent step {message.step}: "
                "a step was lost on the way"
            )
        self._engine.commit(message.token_ids)
        self._engine.obey(message.commands)
        plan = self._engine.plan(message.max_prefill_tokens)
        if (plan.step, self._engine.digest) != (message.step, message.digest):
            raise EngineFailed(
                f"plans differ: rank 0 is at step {message.step} with digest {message.digest:08x}, "
                f"rank {self._rank} at step {plan.step} with digest {self._engine.digest:08x}"
            )
        self._engine.launch(plan)
        self._engine.wait()
