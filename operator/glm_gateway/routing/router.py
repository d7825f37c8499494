"""All that decides where a request goes, in one place: ejection, then splits, then pick; and what becomes of it later.

The order matters. What is out is out of every arm, so that an arm whose only group fails falls to the others; and it is
half of all groups that may be out, not of each arm.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from glm_gateway.routing.arms import OTHERS, Split, arm_of
from glm_gateway.routing.book import Book
from glm_gateway.routing.ejection import Ejection
from glm_gateway.routing.pick import NO_WAITS, Choice, Group, Request, pick


class Splits(msgspec.Struct, frozen=True, kw_only=True):
    """The splits that hold: between deployments, and between the revisions of some of them.

    revisions: by deployment. One holds while groups of several of its arms are there, ready or not: the last one left
    gets everything, whatever its weight.
    """

    deployments: Split | None = None
    revisions: Mapping[str, Split] = {}


class Router:
    """The book and the records of failures of one model's groups. now: seconds of a clock that never goes back.

    Every choice ends in `end`, whatever happens. Before that it has `succeed`, once, or `fail`, or neither, when its
    client went away first.
    """

    def __init__(self, splits: Splits | None = None) -> None:
        self.splits = splits or Splits()
        self.book = Book()
        self.ejection = Ejection()

    def route(
        self,
        request: Request,
        groups: Sequence[Group],
        now: float,
        *,
        full: Collection[str] = (),
        waits_s: Mapping[str, float] = NO_WAITS,
    ) -> Choice | None:
        """Place a request and charge it; None when no group takes it now, or none of an arm that may not fall.

        full: groups that get nothing more now. They are on their arms all the same: load moves no key to another one.
        """
        admitted = [group for group in groups if group.is_ready and not group.is_leaving]
        if self.ejection.knows_failures:
            names = set(self.ejection.admitted([group.name for group in admitted], now))
            admitted = [group for group in admitted if group.name in names]
        on_arm = self._on_arm(request, admitted, groups)
        choice = pick(request, [group for group in on_arm if group.name not in full], self.book, now, waits_s)
        if choice is None:
            return None
        self.ejection.begin(choice.group, choice.charge.number, now)
        if len(on_arm) == 1 < len(admitted):
            return msgspec.structs.replace(choice, why="arm")
        return choice

    def succeed(self, choice: Choice, now: float, prompt_tokens: int | None = None) -> None:
        """Note the first byte of a reply. prompt_tokens: as the group counted them, before it computes them.

        Then it has only taken the request in, and shows that it works by its first token.
        """
        self.book.begin(choice.charge, prompt_tokens)
        if prompt_tokens is None:
            self.ejection.succeed(choice.group, now)

    def grow(self, choice: Choice, num_tokens: int, now: float) -> None:
        """Note tokens of the answer."""
        if self.book.grow(choice.charge, num_tokens):
            self.ejection.succeed(choice.group, now)

    def fail(self, choice: Choice, now: float) -> None:
        """Note that the group failed the request."""
        self.ejection.fail(choice.group, now)

    def end(self, choice: Choice) -> None:
        """Release what the request was charged. A second time changes nothing."""
        if self.book.release(choice.charge):
            self.ejection.drop(choice.group, choice.charge.number)

    def forget(self, group: str) -> None:
        """Forget a group that is gone, or began anew."""
        self.book.forget(group)
        self.ejection.forget(group)

    def _on_arm(self, request: Request, groups: list[Group], there: Iterable[Group]) -> list[Group]:
        """Return the groups of the request's arm: of its deployment, and there of its revision. there: all that are.

        Who sticks to nothing has another arm for each request: else all of these would be on one arm.
        """
        key = request.sticky or request.key
        if self.splits.deployments is not None:
            arm = arm_of(self.splits.deployments, key, {group.deployment for group in groups})
            groups = [group for group in groups if group.deployment == arm]
        if not self.splits.revisions:
            return groups
        kept: list[Group] = []
        for deployment in dict.fromkeys(group.deployment for group in groups):
            here = [group for group in groups if group.deployment == deployment]
            split = self.splits.revisions.get(deployment)
            if split is not None and len(_arms(split, deployment, there)) > 1:
                arm = arm_of(split, key, {_arm(split, group) for group in here})
                here = [group for group in here if _arm(split, group) == arm]
            kept += here
        return kept


def _arm(split: Split, group: Group) -> str:
    return group.revision if group.revision in split.weights else OTHERS


def _arms(split: Split, deployment: str, groups: Iterable[Group]) -> set[str]:
    """Return the arms that have a group which stays, ready or not. One that never said its revision counts by serving:
    it may be on its way to any arm."""
    here = [group for group in groups if group.deployment == deployment and not group.is_leaving]
    return {_arm(split, group) for group in here if group.revision or group.is_ready}
