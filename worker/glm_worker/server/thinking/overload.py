"""What an overloaded deployment cuts of one request's thoughts, as its gateway says it in headers. No I/O.

The gateway's ladder decides when; a request that is gone on with keeps what its first group made of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_THINKING_HEADER = "x-glm-max-thinking"
AUTO_THINKING_HEADER = "x-glm-auto-thinking"
MAX_TOKENS = 10_000_000  # of a thought, as in a policy


@dataclass(frozen=True, kw_only=True)
class Overload:
    """max_thinking_tokens: most of a thought; 0: none. auto_thinks: whether a request whose mode is `auto` may think.

    mistakes: sentences about headers that say nothing; they cut nothing, for it is no client's fault.
    """

    max_thinking_tokens: int | None = None
    auto_thinks: bool = True
    mistakes: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: Callable[[str], Sequence[str]]) -> "Overload":
        """Return what the headers of a request say. said: the values of a header."""
        caps, switches = said(MAX_THINKING_HEADER), said(AUTO_THINKING_HEADER)
        numbers = [int(cap) for cap in caps if _is_cap(cap)]
        mistakes = [
            *(
                f"{MAX_THINKING_HEADER} is {cap[:64]!r}; allowed are integers from 0 to {MAX_TOKENS}"
                for cap in caps
                if not _is_cap(cap)
            ),
            *(f"{AUTO_THINKING_HEADER} is {each[:64]!r}; allowed is off" for each in switches if each != "off"),
        ]
        return cls(
            max_thinking_tokens=min(numbers, default=None),
            auto_thinks="off" not in switches,
            mistakes=tuple(mistakes),
        )


NO_OVERLOAD = Overload()


def _is_cap(text: str) -> bool:
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_TOKENS))
    return is_number and int(text) <= MAX_TOKENS
