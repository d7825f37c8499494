"""What a request took, in OpenAI's shape: at the end, and so far where that is asked for."""

from collections.abc import Callable, Sequence
from typing import Any

from glm_worker.server.flights.replies import Ending, Generated
from glm_worker.server.jobs.order import Order

Json = dict[str, Any]


Progress = Callable[[str], Generated | None]
"""What a job has generated so far, by its id; None when it is over."""


def usage_of(order: Order, endings: Sequence[Ending]) -> Json:
    """Return the usage of answers that are complete."""
    return usage(order, [generated_in(ending) for ending in endings])


def generated_in(ending: Ending) -> Generated:
    """Return what an answer that is complete has generated."""
    return Generated(ending.num_tokens, ending.num_reasoning_tokens, ending.num_cached_tokens)


def usage(order: Order, answers: Sequence[Generated]) -> Json:
    """Return the usage object of what each answer has so far."""
    num_prompt_tokens = order.num_prompt_tokens
    num_tokens = sum(answer.num_tokens for answer in answers)
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
        "prompt_tokens_details": {
            "cached_tokens": order.num_cached_tokens([answer.num_cached_tokens for answer in answers])
        },
        "completion_tokens_details": {"reasoning_tokens": sum(answer.num_reasoning_tokens for answer in answers)},
    }
