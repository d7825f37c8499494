"""Latency promises of a GLMDeployment: `spec.slo`. Pure."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from glm_operator.api import rules
from glm_operator.api.duration import Duration, to_seconds
from glm_operator.api.fields import SpecModel
from glm_operator.api.forms import CLASS_NAME_PATTERN, HEADER_NAME_PATTERN, HEADER_VALUE_PATTERN

DEFAULT_CLASS = "default"
"""Label of the requests that no class matches. They are measured, and promised nothing."""

MAX_CLASSES = 8

Signal = Literal["ttft", "ttfa", "itl", "e2e"]
SIGNALS: tuple[Signal, ...] = ("ttft", "ttfa", "itl", "e2e")

ClassName = Annotated[str, StringConstraints(pattern=CLASS_NAME_PATTERN, max_length=32)]


class HeaderMatch(SpecModel):
    """A header that a request must carry."""

    name: str = Field(pattern=HEADER_NAME_PATTERN, max_length=64, description="Name; upper or lower case is the same.")
    value: str = Field(pattern=HEADER_VALUE_PATTERN, max_length=128, description="The whole value.")


class ClassMatch(SpecModel):
    """Which requests a class is for: those that fit all that is given."""

    thinking: Literal["Enabled", "Disabled", "Any"] = Field(
        default="Any", description="Whether the model thinks before it answers, as resolved for the request."
    )
    header: HeaderMatch | None = Field(default=None, description="A header that the request carries.")


class SloClass(SpecModel):
    """One promise. A request belongs to the first class in the list that matches it."""

    model_config = ConfigDict(json_schema_extra=rules.SLO_CLASS_RULES)

    name: ClassName = Field(description="Label `slo_class` of the metrics. `default` is taken: it is for the others.")
    match: ClassMatch = Field(default=ClassMatch(), description="Which requests it is for. Default: all.")
    ttft: Duration | None = Field(default=None, description="Time to the first token, thinking or answer: 1ms to 1h.")
    ttfa: Duration | None = Field(default=None, description="Time to the first token of the answer: 1ms to 1h.")
    itl: Duration | None = Field(default=None, description="Time between two tokens of a request: 1ms to 1h.")
    e2e: Duration | None = Field(
        default=None, alias="e2e", description="Time from arrival to the last token: 1ms to 1h."
    )
    percentile: int = Field(
        default=95, ge=50, le=99, description="Per cent of requests that are to be this fast: what autoscaling keeps."
    )
    objective: float = Field(
        default=99,
        ge=50,
        le=99.999,
        description="Per cent of requests that meet every threshold, over the window; the rest is the error budget "
        "that alerts are about.",
    )
    window: Duration = Field(default="30d", description="Time over which objective is meant: 5m to 90d.")

    @model_validator(mode="after")
    def _promises_something(self) -> "SloClass":
        if self.name == DEFAULT_CLASS:
            raise ValueError(f"name {DEFAULT_CLASS} is taken: it is for the requests that no class matches")
        if not self.thresholds:
            raise ValueError(f"class {self.name} promises nothing; give it ttft, ttfa, itl or e2e")
        for signal, seconds in self.thresholds.items():
            if not 0.001 <= seconds <= 3600:
                raise ValueError(f"{signal} of class {self.name} is {seconds:g} s; allowed is 1ms to 1h")
        if not 300 <= to_seconds(self.window) <= 90 * 86400:
            raise ValueError(f"window of class {self.name} is {self.window}; allowed is 5m to 90d")
        return self

    @property
    def thresholds(self) -> dict[Signal, float]:
        """The promised times in seconds, by signal."""
        given: dict[Signal, str | None] = {"ttft": self.ttft, "ttfa": self.ttfa, "itl": self.itl, "e2e": self.e2e}
        return {signal: to_seconds(text) for signal, text in given.items() if text is not None}


class Slo(SpecModel):
    """Latency promises. They reach running workers within seconds and move no group."""

    classes: list[SloClass] = Field(
        default=[],
        max_length=MAX_CLASSES,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="Classes of requests and what each is promised. The first that matches counts.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> "Slo":
        names = [each.name for each in self.classes]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"classes {', '.join(sorted(twice))} are there twice; names must differ")
        return self

    def for_workers(self) -> dict[str, object]:
        """Return what is put to the workers' management port: see docs/design/0007-autoscaling.md."""
        return {
            "classes": [
                {
                    "name": each.name,
                    "thinking": each.match.thinking.lower(),
                    "header": None if each.match.header is None else each.match.header.model_dump(),
                    "thresholds_s": dict(each.thresholds),
                    "objective": each.objective / 100,
                }
                for each in self.classes
            ]
        }
