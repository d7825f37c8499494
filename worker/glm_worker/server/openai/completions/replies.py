"""Answers to completions: text_completion, whole and in chunks. Values in, dicts out."""

from collections.abc import Sequence
from typing import Any

from glm_worker.server.flights.replies import Answered, Ending, Event
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.logprobs import CompletionLogprobs, spelled_in_completion
from glm_worker.server.openai.stream import StreamedReplies
from glm_worker.server.openai.usage import Progress, usage_of
from glm_worker.server.text.deltas import Answer, Delta, TokenLogprob, assemble

Json = dict[str, Any]


class CompletionReplies(StreamedReplies):
    def __init__(
        self,
        order: Order,
        model: str,
        created: int,
        progress: Progress | None = None,
        echoed: Sequence[str] = (),
    ) -> None:
        """progress: given when every chunk is to have the usage so far. echoed: the prompts, where they are told."""
        super().__init__(order, model, created, "text_completion", progress)
        self._echo = _for_each_answer(echoed, len(order.jobs))
        self._logprobs = [None if job.num_logprobs is None else CompletionLogprobs(job.tokenizer) for job in order.jobs]

    def body(self, answers: Sequence[Answered]) -> Json:
        choices = [self._choice(index, assemble(deltas), ending) for index, (deltas, ending) in enumerate(answers)]
        return {**self._chunk(choices), "usage": usage_of(self._order, [ending for _, ending in answers])}

    def chunks(self, index: int, deltas: Sequence[Delta]) -> list[Event]:
        return self._told(index, [self._choice(index, assemble(deltas))])

    def ending(self, index: int, ending: Ending) -> list[Event]:
        return self._told(index, [self._choice(index, Answer(), ending)], ending)

    def spelled(self, token: TokenLogprob) -> TokenLogprob:
        return spelled_in_completion(token, self._order.jobs[0].tokenizer)

    def _choice(self, index: int, answer: Answer, ending: Ending | None = None) -> Json:
        echo, self._echo[index] = self._echo[index], ""
        logprobs = self._logprobs[index]
        choice: Json = {
            "index": index,
            "text": echo + answer.content,
            "logprobs": logprobs and logprobs.add(answer.logprobs),
            "finish_reason": None if ending is None else ending.reason,
        }
        return choice if ending is None else {**choice, "stop_reason": ending.stop}


def _for_each_answer(prompts: Sequence[str], num_answers: int) -> list[str]:
    """Return what is told before each answer: answers go prompt by prompt."""
    if not prompts:
        return [""] * num_answers
    return [prompt for prompt in prompts for _ in range(num_answers // len(prompts))]
