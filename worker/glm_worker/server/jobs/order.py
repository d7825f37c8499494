"""One accepted request: the jobs of its answers, and how they are to be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from glm_worker.request import AnswerGrammar
from glm_worker.server.jobs.job import Job


@dataclass(frozen=True, kw_only=True)
class Order:
    """jobs: one for each answer, in the order of their indices. headers: of the reply, beside the usual ones."""

    id: str
    jobs: tuple[Job, ...]
    stream: bool
    include_usage: bool
    shows_reasoning: bool = True
    deadline_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once however many answers it has."""
        prompts = {id(job.prompt_token_ids): job for job in self.jobs}
        return sum(len(job.prompt_token_ids) for job in prompts.values())

    def with_grammar(self, grammar: AnswerGrammar) -> "Order":
        return replace(self, jobs=tuple(replace(job, grammar=grammar) for job in self.jobs))
