"""From a budget to what the engine is told: when a thought is open, and how it is closed."""

from collections.abc import Callable

from glm_worker.request import Thought
from glm_worker.server.thinking.resolve import Thinking
from glm_worker.server.thinking.traits import TemplateTraits


def thought_of(
    thinking: Thinking,
    template: TemplateTraits,
    *,
    begins_open: bool,
    token_id: Callable[[str], int | None],
    encode: Callable[[str], list[int]],
) -> Thought | None:
    """Return the bound on thoughts, or None when there is none to keep, or nothing to know thoughts by.

    begins_open: whether the prompt ends with `<think>`. GLM-4.5 opens a thought itself, GLM-4.7's template does.

    GLM templates write `<think>thought</think>`, without a line break before the end, so the model learned to end a
    thought by that token alone, and the break that follows is the first token of its answer. A template that writes
    white space there gets the same here.
    """
    open_id, close_id = token_id("<think>"), token_id("</think>")
    if thinking.budget_tokens is None or open_id is None or close_id is None:
        return None
    return Thought(
        open_id=open_id,
        close_id=close_id,
        begins_open=begins_open,
        max_tokens=thinking.budget_tokens,
        forced_ids=[*(encode(template.before_end) if template.before_end else ()), close_id],
    )
