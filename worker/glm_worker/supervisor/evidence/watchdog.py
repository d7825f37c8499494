"""Who stands still, and whose fault it is. Pure: time and evidence are passed in.

A rank is hung when its slot has not changed for the heartbeat limit. Ranks that wait for it in a collective stand still
as well and must not be blamed: the culprit is the one that did not enter. Standing still is measured in time during
which the observer itself ran: a pod that was frozen as a whole (cgroup freezer, a suspended machine, a starved node)
finds its slots old when it wakes, and that says nothing about its ranks.
"""

import msgspec

from glm_worker.heartbeat import Phase, SlotView
from glm_worker.supervisor.evidence.causes import Cause

TICK_S = 0.25  # how often everybody looks at what they have, and says so
LONGEST_TICK_S = 1.0  # of a longer gap between two looks only this much counts: the observer was not running
_STOPPED = ("T", "t")
_UNINTERRUPTIBLE = "D"


class RankReport(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence about one rank, gathered in its own pod."""

    rank: int
    view: SlotView
    still_s: float  # how long the slot has not changed, in time during which its observer ran
    process_state: str  # letter of /proc/PID/stat, empty if unknown


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A rank to kill, and the evidence in a sentence."""

    rank: int
    message: str


class Stopwatch:
    """Measures how long a value has not changed, not counting time in which nobody looked."""

    def __init__(self) -> None:
        self._value: int | None = None
        self._looked_at_s = 0.0
        self.still_s = 0.0

    def look(self, value: int, now_s: float) -> float:
        """Return the seconds for which value has stood still."""
        if value == self._value:
            self.still_s += min(now_s - self._looked_at_s, LONGEST_TICK_S)
        else:
            self.still_s = 0.0
        self._value = value
        self._looked_at_s = now_s
        return self.still_s


def judge(reports: list[RankReport], limit_s: float) -> Verdict | None:
    """Return the hung rank of a generation, or None when every rank is fine.

    While ranks load, no progress is no evidence (storage may be slow; start_limit_s bounds it), except for a process
    that is stopped.
    """
    stalled = [report for report in reports if report.still_s >= limit_s and _must_move(report)]
    if not stalled:
        return None
    culprit = min(reports, key=_blame)
    return Verdict(rank=culprit.rank, message=_sentence(culprit, stalled[0]))


def start_limit_cause(reports: list[RankReport], ranks_per_pod: int, limit_s: float) -> Cause:
    """Describe a generation that did not serve in time, by the rank that has come the least far."""
    message = f"the generation did not serve within start_limit_s {limit_s:g}"
    slowest = min(reports, key=lambda report: (report.view.phase, report.rank), default=None)
    if slowest is None:
        return Cause(rank=None, pod=0, reason="failed", message=message)
    view = slowest.view
    message += f": rank {slowest.rank} is {view.phase.name}, {view.done_bytes} of {view.total_bytes} bytes read"
    return Cause(rank=slowest.rank, pod=slowest.rank // ranks_per_pod, reason="failed", message=message)


def _must_move(report: RankReport) -> bool:
    return report.view.phase == Phase.ready or report.process_state in _STOPPED


def _blame(report: RankReport) -> tuple[bool, bool, bool, int, float, int]:
    """Sort key, the culprit first: stopped; outside of collectives; stuck in the kernel; in the earliest collective."""
    return (
        report.process_state not in _STOPPED,
        report.view.in_collective,
        report.process_state != _UNINTERRUPTIBLE,
        report.view.collective_seq if report.view.in_collective else 0,
        -report.still_s,
        report.rank,
    )


def _sentence(culprit: RankReport, stalled: RankReport) -> str:
    view = culprit.view
    place = f"step {view.step}, {'inside' if view.in_collective else 'outside'} collective {view.collective_seq}"
    state = f", process state {culprit.process_state}" if culprit.process_state else ""
    message = f"rank {culprit.rank} has stood still for {culprit.still_s:.1f} s ({place}{state})"
    if stalled.rank != culprit.rank and stalled.view.in_collective:
        message += f" while rank {stalled.rank} waits in collective {stalled.view.collective_seq}"
    return message
