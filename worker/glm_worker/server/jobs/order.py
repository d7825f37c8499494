"""One accepted request: the jobs of its answers, and how they are to be told."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from glm_worker.request import AnswerGrammar
from glm_worker.server.jobs.carried import Carried, decision_of
from glm_worker.server.jobs.job import Job
from glm_worker.server.structured.recipe import Recipe
from glm_worker.server.thinking.resolve import IGNORED_HEADER, Thinking


@dataclass(frozen=True, kw_only=True)
class Order:
    """jobs: one for each answer, in the order of their indices. ignored: fields of the request that have no effect.

    recipe: what the answers must look like; to be compiled before the jobs are admitted. thinking: of a chat.
    arrived_s: when the request came, on time.monotonic. deadline_s: from then on; then it is ended.
    """

    id: str
    jobs: tuple[Job, ...]
    stream: bool
    include_usage: bool
    created: int = field(default_factory=lambda: int(time.time()))  # Unix time
    thinking: Thinking | None = None
    shows_reasoning: bool = True
    has_both_reasoning_fields: bool = False  # `reasoning` beside `reasoning_content`
    arrived_s: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None
    recipe: Recipe | None = None
    recipe_close_id: int | None = None  # the token that ends the thought before the answer, if there is one
    ignored: tuple[str, ...] = field(default=())
    begun_state: bytes = b""  # of the replies, where another group has begun with them

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the reply that say what became of the request."""
        headers = {} if self.thinking is None else {"x-glm-thinking": self.thinking.header}
        return headers | ({IGNORED_HEADER: ", ".join(self.ignored)} if self.ignored else {})

    def carried(self, replies_state: bytes) -> bytes:
        """Return what a group that goes on with the answers needs beside their ids."""
        return Carried(replies=replies_state, decision=decision_of(self.thinking)).packed

    @property
    def is_begun(self) -> bool:
        """Whether another group has begun with the answers."""
        return self.jobs[0].begun is not None

    @property
    def age_s(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self.arrived_s

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the request is ended, 0 where they are over; None: it has no deadline."""
        return None if self.deadline_s is None else max(0.0, self.deadline_s - self.age_s)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once however many answers it has."""
        prompts = {id(job.prompt_token_ids): job for job in self.jobs}
        return sum(len(job.prompt_token_ids) for job in prompts.values())

    def num_cached_tokens(self, of_answers: Sequence[int]) -> int:
        """Return how many tokens of the prompts were not computed. of_answers: those of the prompt of each answer.

        A prompt is counted once, as the answer had it that found least: of four answers to a new prompt one computes
        it, and the others find it.
        """
        least: dict[int, int] = {}
        for job, num_cached in zip(self.jobs, of_answers, strict=True):
            prompt = id(job.prompt_token_ids)
            least[prompt] = min(num_cached, least.get(prompt, num_cached))
        return sum(least.values())

    def with_grammar(self, grammar: AnswerGrammar) -> "Order":
        return replace(self, jobs=tuple(replace(job, grammar=grammar) for job in self.jobs))
