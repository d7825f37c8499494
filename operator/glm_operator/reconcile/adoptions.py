"""How many deployments of the whole fleet may move to a newer rendering at once. In memory: records say who moves."""

from collections.abc import Callable, Iterable

from glm_operator.observe.observed import Observed
from glm_operator.rollout.records import latest

Name = tuple[str, str]  # namespace, name


def is_adopting(observed: Observed) -> bool:
    """Tell whether a deployment moves to an adopted rendering: its record says so until every group is there."""
    last = latest(observed.records)
    return last is not None and last.is_adopting


class Adoptions:
    """The deployments that adopt now. The others wait, and are woken when one of them has finished."""

    def __init__(
        self, at_once: int, in_progress: Callable[[], Iterable[Name] | None], wake: Callable[[Name], None]
    ) -> None:
        """in_progress: those that an operator before this one began; None until the watches have listed all."""
        self._at_once = at_once
        self._in_progress = in_progress
        self._wake = wake
        self._busy: set[Name] | None = None
        self._waiting: set[Name] = set()

    def begin(self, name: Name) -> bool:
        """Take a place for a deployment; return whether it may adopt. One that may not is woken when one is free."""
        if self._busy is None and (found := self._in_progress()) is not None:
            self._busy = set(found)
        if self._busy is None or (name not in self._busy and len(self._busy) >= self._at_once):
            self._waiting.add(name)
            return False
        self._busy.add(name)
        return True

    def note(self, name: Name, *, adopts: bool) -> None:
        """Note what a pass saw: a place is free again when the deployment adopts no longer, or is gone."""
        if self._busy is None:
            return
        if adopts:
            self._busy.add(name)
        elif name in self._busy:
            self._busy.discard(name)
            waiting, self._waiting = self._waiting, set()
            for each in waiting:
                self._wake(each)

    def waits_for(self) -> str:
        """Return for what those that may not adopt wait."""
        if self._busy is None:
            return "waits until every deployment has been listed"
        busy = ", ".join(f"{namespace}/{name}" for namespace, name in sorted(self._busy))
        return f"waits for the adoption of {busy} (at most {self._at_once} at once)"
