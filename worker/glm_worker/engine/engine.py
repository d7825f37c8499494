"""One rank's state machine: obey commands, plan, run, commit. Leader and followers drive it with the same calls in the
same order, so their schedulers stay equal; the digest says whether they have.
"""

from collections.abc import Sequence

from torch import Tensor

from glm_worker.engine.runner import Runner
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
        self._plan: ScheduledBatch | None = None  # run, and waiting for its sampled tokens

    def obey(self, commands: Sequence[ToEngine]) -> list[RequestOutput]:
        """Add and cancel requests; return the outputs of those that end by it."""
        outputs = []
        for command in commands:
            match command:
                case Submit(request=request):
                    output = self.scheduler.add(request)
                case Cancel(request_id=request_id):
                    output = self.scheduler.cancel(request_id)
            if output is not None:
                outputs.append(output)
        return outputs

    def plan(self) -> ScheduledBatch:
        """Plan the next step and note its digest."""
        plan = self.scheduler.schedule()
        self.digest = plan.digest(self.digest)
        return plan

    def run(self, plan: ScheduledBatch) -> Tensor:
        """Return the logits of the sampled sequences. Collective; commit() must follow."""
        self._plan = plan
        return self._runner.run(plan)

    def expert_tokens_by_rank(self) -> list[int]:
        """Return the routed tokens of each rank's experts since the last call; none but on rank 0. Between steps."""
        return self._runner.expert_tokens_by_rank()

    def commit(self, token_ids: Sequence[int]) -> list[RequestOutput]:
        """Take the tokens sampled from the last run, in the order of its logits; without a run there are none."""
        sampled = self._plan.sampled if self._plan is not None else []
        self._plan = None
        if len(token_ids) != len(sampled):
            raise EngineFailed(f"step {self.scheduler.step} samples {len(sampled)} tokens, {len(token_ids)} came")
        ids = {sequence.request_id: token_id for sequence, token_id in zip(sampled, token_ids, strict=True)}
        return self.scheduler.commit(ids)
