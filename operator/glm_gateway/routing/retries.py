"""How many requests that failed go to another group: a budget for all of them, so that no outage doubles the load."""

from collections import deque

WINDOW_S = 10.0
SHARE = 0.1
LEAST = 3
"""Retries in a window that are allowed whatever the number of requests is: else a quiet gateway could do none."""

_BUCKET_S = 1.0


class RetryBudget:
    """Counts requests and retries of the last seconds. One a deployment; time never goes back.

    Of requests only whole buckets within the window count, of retries all that touch it. So no retry makes them more
    than a tenth of the requests of the last ten seconds, or than LEAST. num_taken, num_denied: since it began.
    """

    def __init__(self) -> None:
        self.num_taken = 0
        self.num_denied = 0
        self._buckets: deque[tuple[int, list[int]]] = deque()  # number of the bucket; requests and retries in it

    def note_request(self, now: float) -> None:
        """Count a request, at its first try."""
        self._bucket(now)[0] += 1

    def take(self, now: float) -> bool:
        """Take a retry out of the budget. False: there is none left, and the client gets the error."""
        here = self._bucket(now)
        begin = int((now - WINDOW_S) // _BUCKET_S)
        requests = sum(counts[0] for number, counts in self._buckets if number > begin)
        retries = sum(counts[1] for _, counts in self._buckets)
        if retries + 1 > max(LEAST, SHARE * requests):
            self.num_denied += 1
            return False
        self.num_taken += 1
        here[1] += 1
        return True

    def _bucket(self, now: float) -> list[int]:
        number, begin = int(now // _BUCKET_S), int((now - WINDOW_S) // _BUCKET_S)
        while self._buckets and self._buckets[0][0] < begin:
            self._buckets.popleft()
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append((number, [0, 0]))
        return self._buckets[-1][1]
