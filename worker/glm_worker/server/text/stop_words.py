"""Stop strings as one automaton: where in a growing text one of them is complete, and how much may still become one.

Each character is looked at once, however many strings there are and however long they are: a text of the beginnings of
sixteen long ones costs no more than any other. Source: Aho and Corasick, "Efficient string matching", 1975.
"""

import re
from collections import deque
from collections.abc import Sequence

_CHARS = 21  # bits of a character


class StopWords:
    """Immutable, so all answers of an order share it. State 0: nothing of a stop string has come.

    strings: as the client gave them. depth: of each state, how many characters it has of a string. found: of each
    state, the longest string that ends with its last character.
    """

    __slots__ = ("_beyond", "_fallback", "_first", "depth", "found", "strings")

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = tuple(strings)
        self._beyond: dict[int, int] = {}  # state and character -> state
        self._fallback = [0]  # of each state: the one of the longest end of its text that begins a string as well
        self.depth = [0]
        self.found: list[str | None] = [None]
        for string in self.strings:
            self._grow(string)
        self._link()
        firsts = "".join({re.escape(string[0]) for string in self.strings})
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def __bool__(self) -> bool:
        return bool(self.strings)

    def begin(self, text: str, at: int) -> int:
        """Return where the first character of a string is in a text from a place on; its length where there is none."""
        found = self._first.search(text, at) if self._first is not None else None
        return len(text) if found is None else found.start()

    def after(self, state: int, char: str) -> int:
        """Return the state after one more character."""
        code, beyond = ord(char), self._beyond
        while (following := beyond.get(state << _CHARS | code)) is None and state:
            state = self._fallback[state]
        return following or 0

    def _grow(self, string: str) -> None:
        state = 0
        for char in string:
            edge = state << _CHARS | ord(char)
            following = self._beyond.get(edge)
            if following is None:
                following = self._beyond[edge] = len(self.depth)
                self.depth.append(self.depth[state] + 1)
                self._fallback.append(0)
                self.found.append(None)
            state = following
        self.found[state] = string

    def _link(self) -> None:
        """Set where each state falls back to, those with the fewest characters first."""
        below: list[list[tuple[int, int]]] = [[] for _ in self.depth]
        for edge, following in self._beyond.items():
            below[edge >> _CHARS].append((edge & (1 << _CHARS) - 1, following))
        due = deque([0])
        while due:
            state = due.popleft()
            for code, following in below[state]:
                due.append(following)
                if state:
                    self._fallback[following] = self.after(self._fallback[state], chr(code))
                self.found[following] = self.found[following] or self.found[self._fallback[following]]


NO_STOPS = StopWords(())
