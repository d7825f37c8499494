"""What rank 0 does for the life of a generation: take commands, lead each step, sample, and hand out the tokens.

A step is launched before the one before is waited for, where the engine may (look_ahead.py).
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

from glm_worker.engine.channel import REPEAT_S, Committed, Event, KeepAlive, LeaderChannel, StepInput
from glm_worker.engine.engine import Engine
from glm_worker.engine.intake import Intake
from glm_worker.engine.sampling.sampler import BROKEN, Sampled, Sampler
from glm_worker.engine.server_link import ServerLink
from glm_worker.engine.soundness import Soundness
from glm_worker.engine.step_times import StepTimes
from glm_worker.engine.step_tokens import sample_oldest
from glm_worker.heartbeat import RankSlot
from glm_worker.messages import Cancel, FinishReason, RequestOutput, StepDone
from glm_worker.scheduler.plan import ScheduledBatch
from glm_worker.scheduler.sequence import SequenceState

EXPERT_LOAD_S = 10.0  # between two reads of the experts' load from the device; and when the work is done
HELD_S = 0.01  # how long an idle group waits for the server while the grammar of a request is being read
_NO_STEP = ScheduledBatch(0, (), (), ())


class LeadRank:
    """Rank 0. An idle group waits on the server's socket, never inside a collective."""

    def __init__(
        self,
        engine: Engine,
        sampler: Sampler,
        intake: Intake,
        server: ServerLink,
        channel: LeaderChannel,
        slot: RankSlot,
        generation: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._sampler = sampler
        self._intake = intake
        self._server = server
        self._channel = channel
        self._slot = slot
        self._generation = generation
        self._clock = clock
        self._launched: deque[tuple[ScheduledBatch, float]] = deque()  # not committed, and when each began
        self._ended_s = -math.inf  # when the last step ended
        self._times = StepTimes()
        self._soundness = Soundness()
        self._num_decoding = 0  # requests that got a token in the last step, or will
        self._expert_load_at_s = -math.inf  # when it was read last
        self._events: list[Event] = []  # since the last plan; the followers have not heard of them

    def serve(self) -> NoReturn:
        """Serve until the process is killed or a step fails."""
        while True:
            self.turn()

    def close(self) -> None:
        """Leave the server and the followers, where the process goes on without this rank."""
        self._server.close()
        self._channel.close()

    def turn(self) -> None:
        """Take what the server sent, waiting for it if there is nothing to do, and run a step if there is."""
        is_busy = self._engine.has_work
        idle_s = HELD_S if self._intake.holds_any else REPEAT_S
        commands, outputs = self._intake.take(self._server.receive(0 if is_busy else idle_s))
        self._events += commands
        outputs += self._engine.obey(commands)
        outputs += self._failed_elsewhere()
        if self._engine.has_work:
            self._step(outputs)
            return
        self._slot.idle()
        if outputs:
            self._report(outputs, self._clock())
        if not commands:
            self._channel.send(KeepAlive())

    def _step(self, outputs: list[RequestOutput]) -> None:
        """Launch what may be, wait for the oldest step, sample, commit, report. Collective with the other ranks."""
        while self._engine.may_plan:
            if not self._launch():
                break
        plan, began_s = self._launched.popleft()
        tokens = sample_oldest(self._engine, self._sampler)
        self._events.append(Committed(tokens.token_ids))
        new = self._with_more(tokens.sampled, tokens.sequences, self._engine.commit(tokens.token_ids))
        if not self._launched:
            self._num_decoding = sum([output.finish_reason is None for output in new])
        outputs += new
        self._report(outputs, max(began_s, self._ended_s), plan)

    def _launch(self) -> bool:
        """Plan a step, tell the followers, launch it. False: all that is left waits for the step that runs."""
        began_s = self._clock()
        max_prefill_tokens = self._times.max_prefill_tokens(self._num_decoding)
        plan = self._engine.plan(max_prefill_tokens)
        self._channel.send(StepInput(plan.step, self._events, self._engine.digest, max_prefill_tokens))
        self._events = []
        if not plan.sequences:
            return False
        self._server.begin(plan)
        self._engine.launch(plan)
        self._launched.append((plan, began_s))
        self._num_decoding = len(plan.sampled)
        return True

    def _with_more(
        self, sampled: Sampled, sequences: Sequence[SequenceState], outputs: list[RequestOutput]
    ) -> list[RequestOutput]:
        """Return the outputs of a step with what the sampler says of their requests, one for each sequence."""
        self._soundness.note(len(sequences), sum([error == BROKEN for error in sampled.failed.values()]))
        for index, logprobs in sampled.logprobs.items():
            outputs[index] = msgspec.structs.replace(outputs[index], logprobs=[logprobs])
        for index in sampled.is_over:
            if outputs[index].finish_reason is None:
                outputs[index] = msgspec.structs.replace(outputs[index], finish_reason="stop")
                self._end(sequences[index].request_id, "stop")
        for index, error in sampled.failed.items():
            request_id = sequences[index].request_id
            outputs[index] = RequestOutput(request_id, [], "failed", error=error, is_fault=error == BROKEN)
            self._end(request_id, "failed")
        return outputs

    def _failed_elsewhere(self) -> list[RequestOutput]:
        """End the requests with which a follower cannot go on; return their last outputs."""
        outputs = []
        for rank, report in self._channel.reports():
            if self._end(report.request_id, "failed"):  # else it has ended meanwhile
                error = f"rank {rank} could not go on with this request: {report.error}"
                outputs.append(RequestOutput(report.request_id, [], "failed", error=error, is_fault=True))
        return outputs

    def _end(self, request_id: str, reason: FinishReason) -> bool:
        """End a request here, and say whether it was not over; the followers cancel it before their next plan."""
        was_over = self._engine.scheduler.cancel(request_id, reason) is None
        self._events.append(Cancel(self._generation, request_id, reason))
        return not was_over

    def _report(self, outputs: list[RequestOutput], began_s: float, plan: ScheduledBatch = _NO_STEP) -> None:
        for output in outputs:
            if output.finish_reason is not None:
                self._sampler.forget(output.request_id)
        scheduler = self._engine.scheduler
        now_s = self._ended_s = self._clock()
        prefill_s, decode_s = self._times.split(now_s - began_s, plan.prefill_tokens, plan.decode_tokens)
        self._server.send(
            StepDone(
                generation=self._generation,
                outputs=outputs,
                step=plan.step or scheduler.step,
                began_s=began_s,
                num_running=scheduler.num_running,
                num_waiting=scheduler.num_waiting,
                num_tokens_waiting=scheduler.num_tokens_waiting,
                num_cached_waiting=scheduler.num_cached_waiting,
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
        if now_s - self._expert_load_at_s < EXPERT_LOAD_S and self._engine.has_work:
            return []
        self._expert_load_at_s = now_s
        return self._engine.expert_tokens_by_rank()
