"""What the fields of the API are made of: the base of its models and the scalar types of Kubernetes. Pure."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic.json_schema import WithJsonSchema
from pydantic_core import PydanticCustomError

from glm_operator.api.forms import (
    COUNT_OR_PERCENT_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    OBJECT_NAME_PATTERN,
    RESOURCE_NAME_PATTERN,
    SOURCE_PATTERN,
)
from glm_operator.api.quantity import QUANTITY_PATTERN


class ApiModel(BaseModel):
    """Base of every part of the API: camelCase outside, snake_case inside, unknown fields refused, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class SpecModel(ApiModel):
    """Base of what users write: no text is taken for a number, and a field has one spelling, as on the API server."""

    model_config = ConfigDict(strict=True, populate_by_name=False)


def as_read_by_the_api_server(value: object) -> object:
    """Return what the API server reads in a part of a spec: null is a field left out, and 2.0 the integer 2.

    (An unknown field that is null is left out with the others: it asks for nothing.)
    """
    if isinstance(value, dict):
        return {key: as_read_by_the_api_server(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [as_read_by_the_api_server(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _quantity_as_text(value: object) -> object:
    if isinstance(value, float):
        raise PydanticCustomError("fraction", 'a fraction is no integer; write it as text: "{text}"', {"text": value})
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("quantity", "a quantity is an integer or text, like 2 or 512Mi")
    return str(value)


Quantity = Annotated[
    str,
    BeforeValidator(_quantity_as_text),
    StringConstraints(pattern=QUANTITY_PATTERN, max_length=32),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,  # of text; the minimum is of an integer
            "maxLength": 32,
            "minimum": 0,
        }
    ),
]


def _count_or_percent(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("count", "expected a whole number from 1, or a percentage as text, like 25%")
    return str(value)


CountOrPercent = Annotated[
    str,
    BeforeValidator(_count_or_percent),
    StringConstraints(pattern=COUNT_OR_PERCENT_PATTERN, max_length=4),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": COUNT_OR_PERCENT_PATTERN,  # of text; minimum and maximum are of an integer
            "maxLength": 4,
            "minimum": 1,
            "maximum": 1000,
        }
    ),
]
ObjectName = Annotated[str, StringConstraints(pattern=OBJECT_NAME_PATTERN, max_length=253)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN, max_length=317)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]
ResourceName = Annotated[str, StringConstraints(pattern=RESOURCE_NAME_PATTERN, max_length=253)]
Source = Annotated[
    str,
    StringConstraints(pattern=SOURCE_PATTERN, max_length=512),
    WithJsonSchema({"type": "string", "maxLength": 512}),  # a rule says what is allowed; a pattern would show itself
]
