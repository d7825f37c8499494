"""What tests of the simulator are built from."""

from collections.abc import Callable
from dataclasses import dataclass

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.model.calibration import H200_AIR_FP8
from glm_operator.autoscale.simulate.run import Setup
from glm_operator.autoscale.simulate.seen.scraped import View
from glm_operator.autoscale.simulate.trace import Arrival

SLO = Slo.model_validate({"classes": [{"name": "chat", "ttft": "2s", "itl": "80ms"}]})


def a_setup(duration_s: float = 600.0, rps: float = 1.0, **changes: object) -> Setup:
    arrivals = tuple(Arrival(i / rps, 1000, 200) for i in range(int(duration_s * rps)))
    given: dict[str, object] = {
        "arrivals": arrivals,
        "slo": SLO,
        "scaling": Scaling.model_validate({"min": 1, "max": 10}),
        "calibration": H200_AIR_FP8,
        "start_groups": 2,
        "cold_start_s": (60.0,),
        "duration_s": duration_s,
    }
    return Setup(**{**given, **changes})  # type: ignore[arg-type]


@dataclass
class Told:
    """A law that does what a function of view and situation says, and remembers what it saw."""

    wants: Callable[[View, Situation], int]
    name: str = "told"
    period_s: float = 5.0

    def decide(self, view: View, situation: Situation) -> Verdict:
        return Verdict(self.wants(view, situation), "told so")
