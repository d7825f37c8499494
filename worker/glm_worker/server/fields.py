"""What the schemas of surfaces are made of: strict objects, bounded numbers, and mistakes in plain sentences.

Null means "not given" everywhere. `refusals.parse` turns what these raise into sentences.
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Strict(BaseModel):
    """No coercion, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class FailFast:
    """Stop at the first item that is wrong: one mistake is told, and a million take half a minute to collect.

    What pydantic.FailFast does, but hashable, as members of unions are.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        assert schema["type"] == "list"
        return {**schema, "fail_fast": True}


Item = TypeVar("Item")
Items = Annotated[list[Item], FailFast()]


@dataclass(frozen=True)
class Otherwise:
    """Say this sentence whatever is wrong with the value."""

    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="not_allowed", custom_error_message=self.message
        )


def only(*allowed: object, why: str = "") -> AfterValidator:
    """Accept null and the allowed values, and say so otherwise. why: a sentence to say after them."""

    def check(value: object) -> object:
        if value is None or value in allowed:
            return value
        raise not_allowed(", ".join(repr(each) for each in allowed) or "null", why)

    return AfterValidator(check)


def between(low: float, high: float, *, without_low: bool = False, without_high: bool = False) -> AfterValidator:
    """Accept null and numbers from low to high, and say so otherwise."""
    allowed = f"{low} to {high}"
    if without_low or without_high:
        allowed += f", without {low if without_low else high}"

    def check(value: float | None) -> float | None:
        if value is None or (
            low <= value <= high and not (without_low and value == low) and not (without_high and value == high)
        ):
            return value
        raise not_allowed(allowed)

    return AfterValidator(check)


def not_allowed(allowed: str, why: str = "") -> PydanticCustomError:
    """Return an error about a value that is not one of those allowed."""
    return PydanticCustomError(
        "not_allowed", "allowed: {allowed}{why}", {"allowed": allowed, "why": f"; {why}" if why else ""}
    )


def conflict(param: str, message: str) -> PydanticCustomError:
    """Return an error about fields that do not go together; param is the one to name."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})
