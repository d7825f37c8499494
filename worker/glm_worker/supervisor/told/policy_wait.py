"""How long a group waits to be told the policy before it takes requests without one. Pure: time is passed in.

Requests that come before that are treated by the narrowest policy (server/policy.py), so nobody is shown what the
deployment hides; but where it hides nothing clients would miss their reasoning. So the group is not ready yet. Not for
long: who tells the policy may be away, and a group that shows no reasoning is better than none.
"""

import logging

_log = logging.getLogger("glm_worker.supervisor")

LIMIT_S = 10.0
"""An operator that runs tells a group while it loads, or within the second or two of its next pass. One that starts
again takes about five more."""


class PolicyWait:
    """Is on from the start until somebody puts a policy, if somebody will."""

    def __init__(self, *, is_on: bool) -> None:
        self.is_on = is_on
        self._until_s: float | None = None
        self._has_warned = False

    def begin(self, now_s: float) -> None:
        """Note that the group could take requests. Only the first time counts: later it was without a policy before."""
        if self._until_s is None:
            self._until_s = now_s + LIMIT_S

    def end(self) -> None:
        """Note that the policy was put."""
        self.is_on = False

    def holds(self, now_s: float) -> bool:
        """Return whether requests should go elsewhere for now."""
        return self.is_on and self._until_s is not None and now_s < self._until_s

    def look(self, now_s: float) -> None:
        """Say it, once, when the time is over. Call it now and then."""
        if self.is_on and self._until_s is not None and now_s >= self._until_s and not self._has_warned:
            self._has_warned = True
            message = "nobody has put a policy for %.0f s; the group takes requests, and shows reasoning to nobody"
            _log.warning(message, LIMIT_S)
