"""Further names that clients may ask for, and who goes first, as the gateway's file says it."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from glm_gateway.part import Part
from glm_gateway.routing.classes import HIGHEST, LOWEST

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
GroupOfKeys = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ArmConfig(Part):
    """to: a model or an upstream of this file. weight: its share is its part of all weights."""

    to: ModelName
    weight: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = 1.0


class NameConfig(Part):
    """A name, and where its requests go. may_fall: whether those of an arm without a ready group go to the others."""

    name: ModelName
    arms: Annotated[tuple[ArmConfig, ...], Field(min_length=1, max_length=32)]
    may_fall: bool = True

    @model_validator(mode="after")
    def _arms_get_something(self) -> Self:
        names = [arm.to for arm in self.arms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the arms of {self.name} go twice to {', '.join(twice)}; each may be there once")
        if not any(arm.weight for arm in self.arms):
            raise ValueError(f"the arms of {self.name} have no weight; at least one must be above 0")
        return self


class CanaryConfig(Part):
    """The newest revision of a model's groups, and what part of the callers it gets while others serve as well.

    weight: per cent. may_fall: whether callers of either side go to the other one while theirs has no ready group.
    """

    revision: Annotated[str, Field(min_length=1, max_length=100)]
    weight: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    may_fall: bool = True


class PriorityConfig(Part):
    """A class of callers, by the group of their keys. priority: lower goes first. promise_seconds: null: none."""

    name: GroupOfKeys
    priority: Annotated[int, Field(ge=LOWEST, le=HIGHEST, strict=True)] = 0
    key_groups: Annotated[tuple[GroupOfKeys, ...], Field(max_length=100)] = ()
    promise_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
