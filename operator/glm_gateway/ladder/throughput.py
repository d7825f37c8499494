"""What the groups of a model do together, as this gateway sees it: for when somebody who is refused may come again.

Pure: time is an argument, and never goes back.
"""

from collections import deque

from glm_gateway.ladder.ladder import retry_after_s

WINDOW_S = 60.0
FEW = 32
"""The mean of requests is that of the first FEW, then follows with 1 / FEW."""

UNKNOWN_TOKENS = 1024.0
"""Of a request, while none has ended."""

UNKNOWN_S = 30
"""For who is refused while nothing was computed: not known, not soon."""

_BUCKET_S = 1.0


class Throughput:
    """Tokens of the last minute, prompts and answers, and how many a request has."""

    def __init__(self) -> None:
        self._buckets: deque[list[int]] = deque()  # the number of a second, and its tokens
        self._first_s: float | None = None
        self._num_ended = 0
        self.mean_tokens = UNKNOWN_TOKENS

    def note(self, num_tokens: int, now: float) -> None:
        """Count tokens that were computed."""
        if num_tokens <= 0:
            return
        number = int(now // _BUCKET_S)
        if self._buckets and self._buckets[-1][0] == number:  # of each token but the first of a second
            self._buckets[-1][1] += num_tokens
            return
        self._first_s = now if self._first_s is None else self._first_s
        self._drop(now)
        self._buckets.append([number, num_tokens])

    def end(self, num_tokens: int) -> None:
        """Note a request that has ended. num_tokens: all that it had."""
        if num_tokens <= 0:
            return
        self._num_ended = min(self._num_ended + 1, FEW)
        before = self.mean_tokens if self._num_ended > 1 else 0.0
        self.mean_tokens = before + (num_tokens - before) / self._num_ended

    def tokens_per_s(self, now: float) -> float:
        """Return the mean of the last minute, or of the time since the first token; 0: nothing was computed."""
        self._drop(now)
        if self._first_s is None or not self._buckets:
            return 0.0
        return sum(tokens for _, tokens in self._buckets) / min(WINDOW_S, max(_BUCKET_S, now - self._first_s))

    def retry_after_s(self, num_waiting: int, now: float) -> int:
        """Return when those that wait will be done, and one more, in seconds."""
        per_s = self.tokens_per_s(now)
        if not per_s:
            return UNKNOWN_S
        return retry_after_s(round((num_waiting + 1) * self.mean_tokens), per_s)

    def _drop(self, now: float) -> None:
        begin = int((now - WINDOW_S) // _BUCKET_S)
        while self._buckets and self._buckets[0][0] <= begin:
            self._buckets.popleft()
