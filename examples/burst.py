"""The burst of `make demo`: more people ask than one group takes at once, until a second group takes the rest.

Everybody asks one question after another, all of one address: which group answers is the gateway's business. A
question counts from the moment it is asked, also while it still waits for its first word.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

Ask = Callable[[Callable[[], None]], None]
"""Asks, and calls the function at the first word. Raises what went wrong."""


@dataclass(eq=False)
class Question:
    """One question. Times are of the monotonic clock; inf: not yet."""

    asked_s: float
    first_word_s: float = math.inf

    def begin(self) -> None:
        """Note that the first word is there."""
        self.first_word_s = time.monotonic()

    def waited_s(self, now_s: float) -> float:
        """Return how long the first word took, or is waited for until now."""
        return min(self.first_word_s, now_s) - self.asked_s


@dataclass
class Burst:
    """People who ask all the time."""

    ask: Ask
    num_people: int
    questions: list[Question] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def going(self) -> Iterator[None]:
        """Let them ask until the block is left; everybody has an answer when this returns."""
        with ThreadPoolExecutor(self.num_people) as people:
            asking = [people.submit(self._ask_on) for _ in range(self.num_people)]
            try:
                yield
            finally:
                self._is_over.set()
        for each in asking:
            each.result()

    def late_until_s(self, promised_s: float, now_s: float) -> float:
        """Return when the last first word came that was waited for longer than promised, or is by now; -inf: none."""
        late = [each for each in [*self.questions] if each.waited_s(now_s) > promised_s]
        return max((min(each.first_word_s, now_s) for each in late), default=-math.inf)

    def longest_wait_s(self, now_s: float, since_s: float) -> float:
        """Return the longest wait for a first word, of all that was asked since then and of all that still waits."""
        judged = [each for each in [*self.questions] if each.asked_s >= since_s or each.first_word_s == math.inf]
        return max((each.waited_s(now_s) for each in judged), default=0.0)

    def _ask_on(self) -> None:
        while not self._is_over.is_set() and not self.failures:
            question = Question(time.monotonic())
            self.questions.append(question)
            try:
                self.ask(question.begin)
            except Exception as error:  # noqa: BLE001 - whatever it is: a question was not answered, the demo says so
                self.failures.append(f"{type(error).__name__}: {error}")
