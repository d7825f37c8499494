"""One rank's state machine: obey commands, plan, launch, wait, commit. Leader and followers drive it with the same
calls in the same order, so their schedulers stay equal; the digest says whether they have.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from glm_worker.engine.look_ahead import can_be_passed
from glm_worker.engine.runner import Logits, Runner
from glm_worker.engine.sampling.draw import Drawn
from glm_worker.errors import EngineFailed
from glm_worker.messages import Cancel, RequestOutput, Submit, ToEngine
from glm_worker.scheduler.plan import ScheduledBatch
from glm_worker.scheduler.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class _Launched:
    plan: ScheduledBatch
    is_drawn: bool


class Engine:
    """A scheduler and a runner."""

    def __init__(self, scheduler: Scheduler, runner: Runner, *, looks_ahead: bool = False) -> None:
        """looks_ahead: a second step may be launched while one runs that can be passed; scheduler and runner can."""
        self.scheduler = scheduler
        self.digest = 0  # of all plans so far
        self._runner = runner
        self._looks_ahead = looks_ahead
        self._launched: deque[_Launched] = deque()  # not yet committed
        self._num_waited = 0  # of these

    @property
    def has_work(self) -> bool:
        """Whether a request is left, or a step that was launched and not committed."""
        return self.scheduler.has_work or bool(self._launched)

    @property
    def may_plan(self) -> bool:
        """Whether a step may be planned and launched now: nothing is to be committed before, or a step to be passed."""
        return self.scheduler.has_work and (
            not self._launched or (len(self._launched) == 1 and self._launched[0].is_drawn)
        )

    @property
    def can_be_passed(self) -> bool:
        """Whether a step may be launched behind the newest one while that runs."""
        return self._launched[-1].is_drawn

    @property
    def num_running(self) -> int:
        """Steps that were launched and not waited for."""
        return len(self._launched) - self._num_waited

    @property
    def is_drawn(self) -> bool:
        """Whether the device draws the tokens of the oldest step that was not waited for."""
        return self._launched[self._num_waited].is_drawn

    def obey(self, commands: Sequence[ToEngine]) -> list[RequestOutput]:
        """Add and cancel requests; return the outputs of those that end by it."""
        outputs = []
        for command in commands:
            match command:
                case Submit(request=request):
                    output = self.scheduler.add(request)
                case Cancel(request_id=request_id, reason=reason):
                    output = self.scheduler.cancel(request_id, reason)
            if output is not None:
                outputs.append(output)
        return outputs

    def plan(self, max_prefill_tokens: int | None = None) -> ScheduledBatch:
        """Plan the next step and note its digest. max_prefill_tokens: as Scheduler.schedule has it."""
        plan = self.scheduler.schedule(max_prefill_tokens)
        self.digest = plan.digest(self.digest)
        return plan

    def launch(self, plan: ScheduledBatch) -> None:
        """Give the step to the device. Collective; wait and commit must follow, each in the order of launches."""
        is_drawn = self._looks_ahead and all(
            can_be_passed(s.request, planned.end - s.num_prompt) for s, planned in self.scheduler.newest_sampled()
        )
        self._launched.append(_Launched(plan, is_drawn))
        if is_drawn:
            self._runner.launch(plan, draws=True)
        else:
            self._runner.launch(plan)

    def wait(self) -> Logits:
        """Return the logits of the oldest step that was not waited for, a row for each sampled sequence."""
        self._num_waited += 1
        return self._runner.wait()

    def wait_drawn(self) -> Drawn:
        """Return what the device drew in the oldest step that was not waited for; is_drawn says whether it did."""
        self._num_waited += 1
        return self._runner.wait_drawn()

    def commit(self, token_ids: Sequence[Sequence[int]]) -> list[RequestOutput]:
        """Take what was sampled from the oldest launched step, in the order of its logits.

        That is at least a token each; nothing for a sequence that must be cancelled before the next plan. Where nothing
        was launched there is nothing to take.
        """
        sampled = self._launched.popleft().plan.sampled if self._launched else []
        self._num_waited = max(0, self._num_waited - 1)
        if len(token_ids) != len(sampled):
            raise EngineFailed(f"step {self.scheduler.step} samples {len(sampled)} sequences, {len(token_ids)} came")
        ids = {sequence.request_id: ids for sequence, ids in zip(sampled, token_ids, strict=True)}
        return self.scheduler.commit(ids)

    def expert_tokens_by_rank(self) -> list[int]:
        """Return the routed tokens of each rank's experts since the last call; none but on rank 0. Between steps."""
        return self._runner.expert_tokens_by_rank()
