"""What gives way first under overload, and what is promised to whom, as the gateway's file says it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glm_gateway.ladder.ladder import Steps
from glm_gateway.part import Part

Pressure = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
Signal = Literal["ttft", "ttfa", "itl", "e2e"]

MAX_CLASSES = 8


class OverloadConfig(Part):
    """The rungs, each by the pressure at which it is climbed: the oldest wait over what its class is promised."""

    enabled: bool = True
    short_thoughts: Pressure = 1.0
    no_thoughts: Pressure = 1.5
    in_turn: Pressure = 2.0
    shed: Pressure = 4.0
    calm_seconds: Annotated[float, Field(ge=0, le=3600)] = 10.0
    max_thinking_tokens: Annotated[int, Field(ge=0, le=10**7, strict=True)] = 512

    @model_validator(mode="after")
    def _rungs_go_up(self) -> Self:
        rungs = (self.short_thoughts, self.no_thoughts, self.in_turn, self.shed)
        if list(rungs) != sorted(rungs):
            raise ValueError(
                "shortThoughts, noThoughts, inTurn and shed must not go down; they are "
                + ", ".join(f"{each:g}" for each in rungs)
            )
        return self

    def steps(self) -> Steps:
        return Steps(
            short_thoughts=self.short_thoughts,
            no_thoughts=self.no_thoughts,
            in_turn=self.in_turn,
            shed=self.shed,
            calm_s=self.calm_seconds,
            max_thinking_tokens=self.max_thinking_tokens,
        )


class _AsForWorkers(BaseModel):
    """Of the body that workers get as well: its names are not in camelCase."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HeaderConfig(_AsForWorkers):
    """A header that a request carries."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    value: Annotated[str, Field(min_length=1, max_length=128)]


class SloClassConfig(_AsForWorkers):
    """One promise. thinking, header: which requests it is for. objective: the share of them that keeps it."""

    name: Annotated[str, Field(min_length=1, max_length=32)]
    thinking: Literal["enabled", "disabled", "any"] = "any"
    header: HeaderConfig | None = None
    thresholds_s: dict[Signal, Annotated[float, Field(ge=0.001, le=3600)]]
    objective: Annotated[float, Field(gt=0, lt=1)] = 0.99


class SloConfig(_AsForWorkers):
    """Promises of latency to the requests of one model. The first class that matches a request counts."""

    classes: Annotated[tuple[SloClassConfig, ...], Field(max_length=MAX_CLASSES)] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [each.name for each in self.classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"classes {', '.join(twice)} are there twice; names must differ")
        return self
