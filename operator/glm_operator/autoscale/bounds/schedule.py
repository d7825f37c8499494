"""Whether a window of a schedule is open, and which bounds then hold. Pure.

A window opens when the local clock shows its cron time, and stays open for its duration as a stopwatch counts it. When
clocks are put forward, a time that does not exist opens it at the next that does; when they are put back, a time that
comes twice opens it the first time.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from glm_operator.api.duration import to_seconds
from glm_operator.api.scaling import Schedule


def open_at(schedules: Iterable[Schedule], now_s: float) -> tuple[Schedule, ...]:
    """Return the schedules whose windows are open at a unix time."""
    minute = now_s // 60.0 * 60.0
    return tuple(
        each for each in schedules if _is_open(each.cron, each.time_zone, to_seconds(each.duration), minute, now_s)
    )


def _is_open(cron: str, time_zone: str, duration_s: float, minute_s: float, now_s: float) -> bool:
    """Windows open at whole minutes, so the last opening is looked for once a minute."""
    opened_s = _last_opening(cron, time_zone, duration_s, minute_s)
    return opened_s is not None and now_s < opened_s + duration_s


@lru_cache(maxsize=4096)
def _last_opening(cron: str, time_zone: str, duration_s: float, now_s: float) -> float | None:
    """Return the unix time of an opening from which the window still reaches a moment, the newest of a few. None: none.

    It looks forward from one duration ago, because going back is ambiguous in the hour that comes twice.
    """
    try:
        begin = datetime.fromtimestamp(now_s - duration_s, UTC).astimezone(ZoneInfo(time_zone))
        times = CronSim(cron, begin)
        opened_s = None
        for _ in range(MOST_OPENINGS):
            at_s = next(times).timestamp()
            if at_s > now_s:
                break
            opened_s = at_s
    except (StopIteration, OverflowError, ValueError, OSError):  # no such time, or none that a calendar has
        return None
    return opened_s


MOST_OPENINGS = 64
"""Openings within one duration that are looked at. A window that opens more often is open in any case."""
