"""One rank's state machine: obey commands, plan, launch, wait, commit. Leader and followers drive it with the same
calls in the same order, so their schedulers stay equal; the digest says whether they have.
"""

from collections import deque
from collections.abc import Sequence

from glm_worker.engine.runner import Logits, Runner
from glm_worker.errors import EngineFailed
from glm_worker.messages import Cancel, RequestOutput, Submit, ToEngine
from glm_worker.scheduler.plan import ScheduledBatch
from glm_worker.scheduler.scheduler import Scheduler


class Engine:
    """A scheduler and a runner."""

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.scheduler = scheduler
        self.digest = 0  # of all plans so far
        self._runner = runner
        self._launched: deque[ScheduledBatch] = deque()  # not yet committed

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
        self._launched.append(plan)
        self._runner.launch(plan)

    def wait(self) -> Logits:
        """Return the logits of the oldest step that was not waited for, a row for each sampled sequence."""
        return self._runner.wait()

    def commit(self, token_ids: Sequence[Sequence[int]]) -> list[RequestOutput]:
        """Take what was sampled from the oldest launched step, in the order of its logits.

        That is at least a token each; nothing for a sequence that must be cancelled before the next plan. Where nothing
        was launched there is nothing to take.
        """
        sampled = self._launched.popleft().sampled if self._launched else []
        if len(token_ids) != len(sampled):
            raise EngineFailed(f"step {self.scheduler.step} samples {len(sampled)} sequences, {len(token_ids)} came")
        ids = {sequence.request_id: ids for sequence, ids in zip(sampled, token_ids, strict=True)}
        return self.scheduler.commit(ids)

    def expert_tokens_by_rank(self) -> list[int]:
        """Return the routed tokens of each rank's experts since the last call; none but on rank 0. Between steps."""
        return self._runner.expert_tokens_by_rank()
