"""Tell a person what is being done and for how long already, one line a step."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_TICK_S, TICK_S = 3.0, 30.0
"""When a step that is not over says so: soon enough not to look hung, then seldom enough to keep logs short."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print the title's line when the step is over, and while it lasts a line now and then."""
    start = time.monotonic()
    over = threading.Event()

    def tick() -> None:
        if not over.wait(FIRST_TICK_S):
            say(f"  {title} ...")
        while not over.wait(TICK_S):
            say(f"  {title}: {duration(time.monotonic() - start)} so far")

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    except BaseException:
        say(f"  {title}: failed after {duration(time.monotonic() - start)}")
        raise
    else:
        say(f"  {title}: {duration(time.monotonic() - start)}")
    finally:
        over.set()
        ticker.join()


def duration(seconds: float) -> str:
    """Return 0.4 s, 12 s or 3 min 05 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def say(line: str) -> None:
    """Write one line to standard error: standard output is for what programs read."""
    print(line, file=sys.stderr, flush=True)
