"""What a request took, in OpenAI's shape: at the end, and so far where that is asked for."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from glm_worker.server.flights.replies import Ending, Generated
from glm_worker.server.jobs.order import Order

Json = dict[str, Any]


Progress = Callable[[str], Generated | None]
"""What a job has generated so far, by its id; None when it is over."""


def usage_of(order: Order, endings: Sequence[Ending]) -> Json:
    return usage(order.num_prompt_tokens, [Generated(each.num_tokens, each.num_reasoning_tokens) for each in endings])


def usage(num_prompt_tokens: int, answers: Iterable[Generated]) -> Json:
    """Return the usage object. cached_tokens is 0: nothing of a prompt is kept from one request for another."""
    answers = list(answers)
    num_tokens = sum(answer.num_tokens for answer in answers)
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": sum(answer.num_reasoning_tokens for answer in answers)},
    }
