"""What the autoscaler saw last of each deployment, and what of it the status shows. In memory.

The autoscaler puts, passes read. A pass is wanted when the status has to say something else: a decision at once, a
number when it has differed for as long as a status may lag.
"""

from collections.abc import Callable, Mapping

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.status.measured import Measured, is_measured, shows_at_once, shows_in_time

Name = tuple[str, str]  # namespace, name

LAG_S = 60.0
"""Numbers of the status may be this old, and differ from it for as long."""


class Board:
    """One entry a deployment that is measured."""

    def __init__(self, wake: Callable[[Name], None], *, has_prometheus: bool, lag_s: float = LAG_S) -> None:
        """wake: told that a pass over a deployment is wanted."""
        self._wake = wake
        self._has_prometheus = has_prometheus
        self._lag_s = lag_s
        self._latest: dict[Name, Measured] = {}
        self._shown: dict[Name, Measured] = {}
        self._differs_since: dict[Name, float] = {}

    def is_measured(self, scaling: Scaling | None, slo: Slo | None) -> bool:
        """Whether a deployment with this spec is looked at."""
        return is_measured(scaling, slo, has_prometheus=self._has_prometheus)

    def put(self, name: Name, measured: Measured) -> None:
        """Keep the last look; ask for a pass if the status has to say something else."""
        self._latest[name] = measured
        shown = self._shown.get(name)
        if shown is not None and not shows_at_once(shown, measured):
            if not shows_in_time(shown, measured):
                self._differs_since.pop(name, None)
                return
            since = self._differs_since.setdefault(name, measured.at_s)
            if 0 <= measured.at_s - since < self._lag_s:
                return
        self._shown[name] = measured
        self._differs_since.pop(name, None)
        self._wake(name)

    def drop(self, name: Name) -> None:
        """Forget a deployment that is measured no longer, or is gone."""
        for entries in (self._latest, self._shown, self._differs_since):
            entries.pop(name, None)

    def shown(self, namespace: str, name: str) -> Measured | None:
        """Return what the status shows of a deployment; None: nothing was measured since the operator began."""
        return self._shown.get((namespace, name))

    @property
    def latest(self) -> Mapping[Name, Measured]:
        """The last look at each deployment, for the metrics."""
        return dict(self._latest)  # they are written in another thread
