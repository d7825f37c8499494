"""What can be seen of a conversation without understanding it: the numbers that `auto` decides by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple


class PastTurn(NamedTuple):
    """One turn of the conversation so far."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str
    has_reasoning: bool = False  # whether it came with a thought
    num_calls: int = 0  # of tools


@dataclass(frozen=True, slots=True)
class Features:
    """Each is 0 where there is nothing of it, and at most about 1. The names are those of the weights (score.py)."""

    values: dict[str, float]


def features_of(turns: Sequence[PastTurn], num_tools: int) -> Features:
    """Return the features of a conversation that the assistant is to go on with. num_tools: how many are on offer."""
    raise NotImplementedError
