"""A question with its answer: what every task draws."""

from dataclasses import dataclass

from prompt import Message


@dataclass(frozen=True)
class Exchange:
    """A question and the messages that answer it; the last one is the assistant's.

    needs and avoids name the tools that must and must not be offered for the answer to be right. Where is_own_course
    is false, others decided on earlier turns (one call where the model makes two): only the last one is to be learned.
    """

    keys: tuple[str, ...]
    messages: tuple[Message, ...]
    needs: frozenset[str] = frozenset()
    avoids: frozenset[str] = frozenset()
    is_own_course: bool = True


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(reasoning: str, content: str) -> Message:
    return {"role": "assistant", "reasoning_content": reasoning, "content": content}
