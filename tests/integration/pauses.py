"""How long to pause between two looks at what is waited for: each look costs this process and the one it asks."""

import time

SHORTEST_S, LONGEST_S = 0.02, 0.1
SHARE = 0.1
"""Of the time that was waited so far."""


class Pauses:
    """Short ones at first, longer ones later: what comes late is noticed a tenth later than it could be."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def pause(self) -> None:
        time.sleep(min(LONGEST_S, max(SHORTEST_S, SHARE * (time.monotonic() - self._began_s))))
