"""How evenly experts are used over the ranks that hold them, over the last minute. Pure: time is passed in."""

from collections import deque
from collections.abc import Sequence

WINDOW_S = 60.0


class ExpertLoad:
    """Adds up what rank 0 reports now and then: tokens routed to the experts of each rank since its last report."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, tuple[int, ...]]] = deque()

    def restart(self) -> None:
        """Forget everything: another generation may have its experts elsewhere."""
        self._reports.clear()

    def report(self, now_s: float, tokens_by_rank: Sequence[int]) -> None:
        """Take one report; an empty one says nothing."""
        if tokens_by_rank:
            self._reports.append((now_s, tuple(tokens_by_rank)))
        self._forget(now_s)

    def imbalance(self, now_s: float) -> float:
        """Return the tokens of the busiest rank against the mean over ranks: 1 is even, and where nothing was routed.

        It is at most the number of ranks, when one of them does all the work.
        """
        self._forget(now_s)
        by_rank = [sum(tokens) for tokens in zip(*(tokens for _, tokens in self._reports), strict=True)]
        total = sum(by_rank)
        return max(by_rank) * len(by_rank) / total if total else 1.0

    def _forget(self, now_s: float) -> None:
        while self._reports and now_s - self._reports[0][0] > WINDOW_S:
            self._reports.popleft()
