"""Kinds of fields that the schemas of surfaces are made of. Null means "not given" everywhere.

What these raise `refusals.parse` turns into sentences.
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError


class Strict(BaseModel):
    """No coercion, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class _FailFast:
    """Stop at the first item that is wrong: one mistake is told, and a million take half a minute to collect.

    What pydantic.FailFast does, but hashable, as members of unions are.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "list"
        return {**schema, "fail_fast": True}


Item = TypeVar("Item")
Items = Annotated[list[Item], _FailFast()]


def only(*allowed: object, because: str = "") -> AfterValidator:
    """Accept null and the allowed values, and say so otherwise. because: what is said beside it."""

    def check(value: object) -> object:
        if value is None or value in allowed:
            return value
        raise not_allowed(*allowed, because=because)

    return AfterValidator(check)


def between(low: float, high: float, *, without_low: bool = False, without_high: bool = False) -> AfterValidator:
    """Accept null and numbers from low to high, and say so otherwise."""
    without = f", without {low if without_low else high}" if without_low or without_high else ""

    def check(value: float | None) -> float | None:
        if value is None or (
            low <= value <= high and not (without_low and value == low) and not (without_high and value == high)
        ):
            return value
        raise PydanticCustomError("not_allowed", "allowed: {allowed}", {"allowed": f"{low} to {high}{without}"})

    return AfterValidator(check)


def not_allowed(*allowed: object, because: str = "") -> PydanticCustomError:
    """Return an error about a value that is none of these."""
    names = ", ".join(repr(each) for each in allowed) or "null"
    return PydanticCustomError("not_allowed", "allowed: {allowed}", {"allowed": f"{names}{because}"})


def conflict(param: str, message: str) -> PydanticCustomError:
    """Return an error about fields that do not go together. param: the one to name."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})
