"""How many groups there may be and who decides it: `spec.scaling`. Pure."""

from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import ConfigDict, Field, StringConstraints, model_validator

from glm_operator.api import rules
from glm_operator.api.duration import Duration, to_seconds
from glm_operator.api.fields import SpecModel
from glm_operator.api.forms import CLASS_NAME_PATTERN, CRON_PATTERN, TIME_ZONE_PATTERN

Mode = Literal["Active", "Observe", "External", "Disabled"]
MAX_SCHEDULES = 16
_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class ScaleUp(SpecModel):
    """How fast groups are added."""

    groups: int = Field(default=4, ge=1, le=1000, description="Most groups added within a period.")
    period_seconds: int = Field(default=60, ge=1, le=3_600, description="The period.")
    stabilization_seconds: int = Field(
        default=0, ge=0, le=3_600, description="More groups must have been wanted for this long."
    )


class ScaleDown(SpecModel):
    """How fast groups are removed. A group that goes finishes its requests first."""

    groups: int = Field(default=1, ge=1, le=1000, description="Most groups removed within a period.")
    period_seconds: int = Field(default=60, ge=1, le=3_600, description="The period.")
    stabilization_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Fewer groups must have been enough for this long. Default: twice what a group takes to start, as "
        "measured, within 60 and 300; 300 before any start was measured, in the first half hour, and for an hour after "
        "a group was wanted back within 300.",
    )


class Schedule(SpecModel):
    """A window that comes again and again, and the bounds in it."""

    model_config = ConfigDict(json_schema_extra=rules.SCHEDULE_RULES)

    name: Annotated[str, StringConstraints(pattern=CLASS_NAME_PATTERN, max_length=32)] = Field(
        description="Name, for status and Events."
    )
    cron: str = Field(
        pattern=CRON_PATTERN, max_length=100, description="When the window opens: minute hour day month weekday."
    )
    duration: Duration = Field(description="How long it stays open: 1m to 7d.")
    time_zone: str = Field(
        default="UTC", pattern=TIME_ZONE_PATTERN, max_length=64, description="Of cron, as in Europe/Berlin."
    )
    min_groups: int | None = Field(
        default=None, alias="min", ge=1, le=1000, description="Replaces scaling.min while the window is open."
    )
    max_groups: int | None = Field(
        default=None, alias="max", ge=1, le=1000, description="Replaces scaling.max while the window is open."
    )

    @model_validator(mode="after")
    def _can_be(self) -> "Schedule":
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"timeZone {self.time_zone} of schedule {self.name} is unknown; use one as in Europe/Berlin"
            ) from None
        try:
            CronSim(self.cron, _SOME_TIME)
        except CronSimError as error:
            raise ValueError(f"cron {self.cron!r} of schedule {self.name} cannot be read: {error}") from None
        if not 60 <= to_seconds(self.duration) <= 7 * 86400:
            raise ValueError(f"duration {self.duration} of schedule {self.name} is not within 1m and 7d")
        if self.min_groups is None and self.max_groups is None:
            raise ValueError(f"schedule {self.name} changes nothing; give it min or max")
        if self.min_groups is not None and self.max_groups is not None and self.min_groups > self.max_groups:
            raise ValueError(f"min {self.min_groups} of schedule {self.name} is more than its max {self.max_groups}")
        return self


class Zero(SpecModel):
    """How a deployment goes to no group at all, and what waits until one is there again."""

    idle_after: Duration = Field(
        default="10m", description="How long no request may have come before the last group goes: 10s to 30d."
    )
    hold_timeout: Duration = Field(
        default="10m", description="How long a request waits for a group; then it gets 503: 1s to 1d."
    )
    max_held: int = Field(default=1000, ge=1, le=1_000_000, description="Requests that may wait at one gateway.")

    @model_validator(mode="after")
    def _times_fit(self) -> "Zero":
        for name, text, least, most, words in (
            ("idleAfter", self.idle_after, 10, 30 * 86400, "10s to 30d"),
            ("holdTimeout", self.hold_timeout, 1, 86400, "1s to 1d"),
        ):
            if not least <= to_seconds(text) <= most:
                raise ValueError(f"{name} is {text}; allowed is {words}")
        return self


class Scaling(SpecModel):
    """Who writes spec.replicas, and within which bounds."""

    model_config = ConfigDict(json_schema_extra=rules.SCALING_RULES)

    mode: Mode = Field(
        default="Active",
        description="Active: the operator sets spec.replicas by the load and the SLO. Observe: it decides and says so, "
        "and sets nothing. External: an HPA or KEDA sets spec.replicas. Disabled: a person does.",
    )
    min_groups: int = Field(
        default=1,
        alias="min",
        ge=0,
        le=1000,
        description="Fewest groups. 0: none while nobody asks; the gateway holds the first requests. With mode Active "
        "or Observe.",
    )
    zero: Zero | None = Field(
        default=None, description="When the last group goes, and what waits then. With min 0 only."
    )
    max_groups: int | None = Field(
        default=None, alias="max", ge=1, le=1000, description="Most groups. Required with Active and Observe."
    )
    gpu_budget: int | None = Field(
        default=None, ge=1, le=100_000, description="Most GPUs that the groups of this deployment may take together."
    )
    target_utilization: int = Field(
        default=85,
        ge=10,
        le=95,
        description="Per cent of what a group was measured to do that is planned for. Less keeps more room for bursts.",
    )
    up: ScaleUp = Field(default=ScaleUp(), description="How fast groups are added.")
    down: ScaleDown = Field(default=ScaleDown(), description="How fast groups are removed.")
    warm_up_seconds: int = Field(
        default=30, ge=0, le=3_600, description="What a group measures of itself this long after its start is ignored."
    )
    on_missing_metrics: Literal["Fallback", "Hold"] = Field(
        default="Fallback",
        description="Where Prometheus cannot be asked. Fallback: the operator asks the workers itself. Hold: nothing "
        "is scaled until Prometheus answers.",
    )
    schedules: list[Schedule] = Field(
        default=[],
        max_length=MAX_SCHEDULES,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="Windows with other bounds. Of several that are open, the largest min and the largest max count.",
    )

    @model_validator(mode="after")
    def _bounds_fit(self) -> "Scaling":
        if self.max_groups is None:
            if self.mode in ("Active", "Observe"):
                raise ValueError(f"mode {self.mode} needs max, the most groups")
        elif self.min_groups > self.max_groups:
            raise ValueError(f"min {self.min_groups} is more than max {self.max_groups}")
        for each in self.schedules:
            most = each.max_groups or self.max_groups
            if most is not None and each.min_groups is not None and each.min_groups > most:
                raise ValueError(
                    f"min {each.min_groups} of schedule {each.name} is more than max {most}; "
                    "give the schedule a max of its own"
                )
        if self.min_groups == 0 and self.mode not in ("Active", "Observe"):
            raise ValueError(f"min 0 needs mode Active or Observe; mode is {self.mode}")
        if self.zero is not None and self.min_groups > 0:
            raise ValueError(f"zero is for min 0; min is {self.min_groups}")
        names = [each.name for each in self.schedules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"schedules {', '.join(sorted(twice))} are there twice; names must differ")
        return self

    @property
    def may_be_zero(self) -> bool:
        """Whether there may be no group at all."""
        return self.min_groups == 0
