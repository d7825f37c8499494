"""Prompts of like size go one after the other, those of different sizes side by side.

A prefill is in a lane by the tokens that it must compute: lane 0 has the short ones, each further lane those of up to
four times as many. In a step the lanes that want tokens get equal parts of the budget, and what one does not need the
others get. Within a lane whoever comes first goes first, and at most one prefill of it is begun and not done. So a
prompt waits for those of its own size, and of the longest ones there are few that hold blocks without an answer.
"""

from collections.abc import Collection

from glm_worker.scheduler.sequence import SequenceState

SHORT_SHARE = 4  # a prompt of at most this part of a step is short


def short_tokens(max_batch_tokens: int) -> int:
    """Return the tokens of the longest prefill of lane 0."""
    return max(1, max_batch_tokens // SHORT_SHARE)


def lane_of(num_tokens: int, short: int) -> int:
    """Return the lane of a prefill of num_tokens: 0 up to short, 1 up to 4 * short, 2 up to 16 * short, …"""
    return (max(0, num_tokens - 1) // short).bit_length() + 1 >> 1


class LaneShares:
    """The tokens that one step has for the prefills of one priority, and who of them gets how many."""

    def __init__(self, budget: int, lanes: Collection[int]) -> None:
        """lanes: all that may want tokens."""
        self.left = budget
        self.given: dict[SequenceState, int] = {}  # everybody who has come for tokens, some with 0
        self._of_lane: dict[int, int] | None = dict.fromkeys(lanes, budget // len(lanes)) if lanes else {}
        self._begun: set[int] = set()  # lanes with a prefill that this step does not finish

    def has(self, lane: int) -> bool:
        """Whether a lane has a part of its own, or needs none."""
        return self._of_lane is None or lane in self._of_lane

    def is_open(self, lane: int) -> bool:
        """Whether a further prefill of this lane would get any."""
        return lane not in self._begun and self._room(lane) > 0

    def give(self, sequence: SequenceState) -> None:
        """Let a prefill have as many as its lane has left, and it needs."""
        lane, given = sequence.lane, self.given.get(sequence, 0)
        num_left = sequence.num_uncomputed - given
        num_new = min(num_left, self._room(lane))
        self.given[sequence] = given + num_new
        self.left -= num_new
        if self._of_lane is not None and num_new:
            self._of_lane[lane] -= num_new
        if num_new < num_left:
            self._begun.add(lane)

    def share_the_rest(self) -> None:
        """Give what lanes have left to those that came and need more, the most important first, then to whoever comes.

        So if any are left after this, no prefill is begun and not done.
        """
        self._of_lane = None
        self._begun.clear()
        for sequence in sorted(self.given, key=lambda each: each.rank):
            self.give(sequence)

    def _room(self, lane: int) -> int:
        return self.left if self._of_lane is None else self._of_lane.get(lane, 0)
