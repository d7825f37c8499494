"""Kinds of fields that the schemas of surfaces are made of. Null means "not given" everywhere.

What these raise `refusals.parse` turns into sentences.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


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


@dataclass(frozen=True)
class _Checked:
    """Accept null, and what the check lets pass. as_json_schema: what the description of the API says of the others."""

    check: Callable[[Any], Any]
    as_json_schema: Callable[[dict[str, Any]], dict[str, Any]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return self.as_json_schema(handler(schema))

    def _checked(self, value: Any) -> Any:
        return value if value is None else self.check(value)


def only(*allowed: object, because: str = "") -> _Checked:
    """Accept null and the allowed values, and say so otherwise. because: what is said beside it."""

    def check(value: object) -> object:
        if value in allowed:
            return value
        raise not_allowed(*allowed, because=because)

    return _Checked(check, lambda _: {"enum": [*allowed, None]})


def between(low: float, high: float, *, without_low: bool = False, without_high: bool = False) -> _Checked:
    """Accept null and numbers from low to high, and say so otherwise."""
    without = f", without {low if without_low else high}" if without_low or without_high else ""

    def check(value: float) -> float:
        if low <= value <= high and not (without_low and value == low) and not (without_high and value == high):
            return value
        raise PydanticCustomError("not_allowed", "allowed: {allowed}", {"allowed": f"{low} to {high}{without}"})

    def as_json_schema(said: dict[str, Any]) -> dict[str, Any]:
        for option in said.get("anyOf", [said]):
            if option.get("type") in ("integer", "number"):
                option["exclusiveMinimum" if without_low else "minimum"] = low
                option["exclusiveMaximum" if without_high else "maximum"] = high
        return said

    return _Checked(check, as_json_schema)


@dataclass(frozen=True)
class Otherwise:
    """Say that this is allowed, whatever is wrong with the value."""

    allowed: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source),
            custom_error_type="not_allowed",
            custom_error_message="allowed: {allowed}",
            custom_error_context={"allowed": self.allowed},
        )


def not_allowed(*allowed: object, because: str = "") -> PydanticCustomError:
    """Return an error about a value that is none of these."""
    names = ", ".join(repr(each) for each in allowed) or "null"
    return PydanticCustomError("not_allowed", "allowed: {allowed}", {"allowed": f"{names}{because}"})


def conflict(param: str, message: str) -> PydanticCustomError:
    """Return an error about fields that do not go together. param: the one to name."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})
