"""What rank 0 does for the life of a generation: take commands, lead each step, sample, and hand out the tokens."""

import math
import time
from collections.abc import Callable
from typing import NoReturn

from glm_worker.engine.channel import REPEAT_S, KeepAlive, LeaderChannel, StepInput
from glm_worker.engine.engine import Engine
from glm_worker.engine.sampling import sample
from glm_worker.engine.server_link import ServerLink
from glm_worker.engine.step_times import StepTimes
from glm_worker.heartbeat import RankSlot
from glm_worker.messages import RequestOutput, StepDone, ToEngine
from glm_worker.scheduler.plan import ScheduledBatch

EXPERT_LOAD_S = 10.0  # between two reads of the experts' load from the device; and when the work is done
_NO_STEP = ScheduledBatch(0, (), (), ())


class Leader:
    """Rank 0. An idle group waits on the server's socket, never inside a collective."""

    def __init__(
        self,
        engine: Engine,
        server: ServerLink,
        channel: LeaderChannel,
        slot: RankSlot,
        generation: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._server = server
        self._channel = channel
        self._slot = slot
        self._generation = generation
        self._clock = clock
        self._token_ids: list[int] = []  # sampled in the last step; the followers have not heard of them
        self._times = StepTimes()
        self._expert_load_at_s = -math.inf  # when it was read last
        self._commands: list[ToEngine] = []  # obeyed here; the followers have not heard of them

    def serve(self) -> NoReturn:
        """Serve until the process is killed or a step fails."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take what the server sent, waiting for it if there is nothing to do, and run a step if there is."""
        is_busy = self._engine.scheduler.has_work
        commands = self._server.receive(0 if is_busy else REPEAT_S)
        self._commands += commands
        outputs = self._engine.obey(commands)
        if self._engine.scheduler.has_work:
            self._step(outputs)
            return
        self._slot.idle()
        if outputs:
            self._report(outputs, self._clock())
        if not commands:
            self._channel.send(KeepAlive())

    def _step(self, outputs: list[RequestOutput]) -> None:
        """Plan, tell the followers, run, sample, commit, report. Collective with the followers' steps."""
        began_s = self._clock()
        plan = self._engine.plan()
        self._slot.beat(plan.step)
        self._channel.send(StepInput(plan.step, self._token_ids, self._commands, self._engine.digest))
        self._commands = []
        logits_SV = self._engine.run(plan)
        sampled = plan.sampled
        self._token_ids = sample(logits_SV, [s.sampling for s in sampled], [s.end for s in sampled])
        outputs += self._engine.commit(self._token_ids)
        self._report(outputs, began_s, plan)

    def _report(self, outputs: list[RequestOutput], began_s: float, plan: ScheduledBatch = _NO_STEP) -> None:
        scheduler = self._engine.scheduler
        now_s = self._clock()
        prefill_s, decode_s = self._times.split(now_s - began_s, plan.prefill_tokens, plan.decode_tokens)
        self._server.send(
            StepDone(
                generation=self._generation,
                outputs=outputs,
                step=scheduler.step,
                began_s=began_s,
                num_running=scheduler.num_running,
                num_waiting=scheduler.num_waiting,
                num_tokens_waiting=scheduler.num_tokens_waiting,
                kv_blocks_used=scheduler.blocks.num_used,
                num_preemptions=scheduler.num_preemptions,
                scheduled=list(plan.first_scheduled),
                num_prompt_tokens_left=scheduler.num_prompt_tokens_left,
                prefill_tokens=plan.prefill_tokens,
                prefill_s=prefill_s,
                decode_tokens=plan.decode_tokens,
                decode_s=decode_s,
                expert_tokens_by_rank=self._expert_tokens(now_s),
            )
        )

    def _expert_tokens(self, now_s: float) -> list[int]:
        """Return what each rank's experts computed, now and then: the device is settled here, and still it costs."""
        if now_s - self._expert_load_at_s < EXPERT_LOAD_S and self._engine.scheduler.has_work:
            return []
        self._expert_load_at_s = now_s
        return self._engine.expert_tokens_by_rank()
