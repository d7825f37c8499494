"""Thoughts of earlier turns: what becomes of them in the prompt.

Within a turn, that is after the user's last message, every GLM template keeps them: a model that called a tool reads
what it thought before the call (interleaved thinking). What differs is what came before that message. With
`clear_thinking: false` it stays (preserved thinking) where the template knows that variable. Those of GLM-4.5 and 4.6
do not: a request that asks for it is told so (`x-glm-ignored`), as is one that asks to clear what a template keeps.
"""

from glm_worker.server.thinking.traits import TemplateTraits
from glm_worker.server.thinking.wish import ThinkingWish


def kept_history(wish: ThinkingWish, template: TemplateTraits) -> tuple[bool | None, tuple[str, ...]]:
    """Return whether the template is told to keep thoughts of earlier turns, and the parameters that have no effect.

    None: it is told nothing. A wish that a template fulfils by itself needs no variable, and has its effect.
    """
    wants = wish.keeps_history
    if wants is None or wants == template.keeps_history:
        return wants, ()
    if template.can_keep_history if wants else template.can_clear_history:
        return wants, ()
    return None, (wish.param("keeps_history") or "clear_thinking",)
