"""Errors as clients see them: every failure has a status, a sentence and a code; a surface writes its body.

Also turns what pydantic found wrong with a request into a sentence that names the field, its value and what is allowed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from glm_worker.errors import DeadlinePassed, GenerationLost, Overloaded, RequestRefused

Request = TypeVar("Request", bound=BaseModel)
Json = dict[str, Any]

MAX_ECHO = 100
_MAX_MISTAKES = 1000
_repr = Repr()  # of a value of megabytes it writes, and looks at, only the beginning
_repr.maxstring = _repr.maxother = _repr.maxlong = MAX_ECHO


@dataclass(frozen=True)
class Failure:
    """An error response. retry_after_s: when the client may try again, if it may."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}


def failure_of(error: Exception) -> Failure:
    """Return what to tell the client. An error that is not one of ours is told as an internal one, without its text."""
    match error:
        case RequestRefused():
            return Failure(error.status, error.message, "invalid_request_error", error.param, error.code)
        case Overloaded():
            return Failure(
                503, error.message, "service_unavailable", code="overloaded", retry_after_s=error.retry_after_s
            )
        case GenerationLost():
            return Failure(503, str(error), "service_unavailable", code="generation_lost", retry_after_s=1)
        case DeadlinePassed():
            return Failure(504, str(error), "deadline_passed", code="deadline_passed")
        case _:
            return Failure(
                500, "internal error; the server's log has the details", "internal_error", code="internal_error"
            )


def shortened(text: str, most: int = MAX_ECHO) -> str:
    """Return the text, cut when it is longer than most: what clients sent is told back, but not at any length."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def model_not_found(name: str, served: str) -> RequestRefused:
    return RequestRefused(
        f"the model '{shortened(name)}' does not exist here; this server has '{served}'",
        param="model",
        code="model_not_found",
        status=404,
    )


def parse(model: type[Request], body: bytes) -> Request:
    """Return the request in a JSON body, or raise RequestRefused with a sentence about one thing wrong with it."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MAX_MISTAKES:  # to list them takes seconds when there are a million
            raise RequestRefused(f"the body has {error.error_count()} mistakes, too many to name one") from error
        # Of the options of a union the one that was followed furthest is the one that was meant.
        details = max(error.errors(include_url=False), key=lambda each: len(each["loc"]))
        raise _refusal(model, body, details) from error


def _refusal(model: type[BaseModel], body: bytes, details: ErrorDetails) -> RequestRefused:
    if details["type"] == "json_invalid":
        return RequestRefused(f"the body is not valid JSON: {details['msg'].removeprefix('Invalid JSON: ')}")
    raw = from_json(body)
    if not isinstance(raw, dict):
        return RequestRefused("the body must be a JSON object")
    path = list(_json_path(raw, details["loc"], is_missing=details["type"] == "missing"))
    param = shortened(_spelled(path)) or None
    shown = shortened(_repr.repr(details["input"]))
    match details["type"]:
        case "missing":
            return RequestRefused(f"{param} is missing", param=param, code="missing_required_parameter")
        case "union_tag_not_found":
            tag = f"{param}.{_discriminator(details)}"
            return RequestRefused(f"{tag} is missing", param=tag, code="missing_required_parameter")
        case "union_tag_invalid":
            ctx, tag = details["ctx"], f"{param}.{_discriminator(details)}"
            return RequestRefused(f"{tag} is '{shortened(ctx['tag'])}'; allowed: {ctx['expected_tags']}", param=tag)
        case "extra_forbidden":
            allowed = ", ".join(_fields(model, raw, path[:-1])) or "none"
            message = (
                f"unknown field {param}; allowed beside it: {allowed}"
                if path[:-1]
                else f"unknown field {param}; allowed: {allowed}"
            )
            return RequestRefused(message, param=param, code="unknown_parameter")
        case "conflict":
            return RequestRefused(details["msg"], param=details["ctx"]["param"], code="invalid_value")
        case "not_allowed":
            return RequestRefused(f"{param} is {shown}; {details['msg']}", param=param, code="invalid_value")
        case _:
            message = details["msg"][0].lower() + details["msg"][1:]
            return RequestRefused(f"{param} is {shown}: {message}", param=param, code="invalid_value")


def _discriminator(details: ErrorDetails) -> str:
    """Return the field that tells the members of a union apart."""
    return str(details["ctx"]["discriminator"]).strip("'")


def _json_path(raw: Any, loc: Sequence[str | int], *, is_missing: bool) -> Iterator[str | int]:
    """Leave out of a pydantic location what is not in the JSON: names of union members. A missing field stays."""
    for position, part in enumerate(loc):
        is_in_json = part in raw if isinstance(raw, dict) else isinstance(raw, list) and isinstance(part, int)
        if is_in_json and position < len(loc) - 1 and not isinstance(raw[part], dict | list):
            is_in_json = part not in [tag for _, tag in _tags_of(raw)]  # the member "text", not its field
        if is_in_json:
            raw = raw[part]
        elif not (is_missing and position == len(loc) - 1):
            continue
        yield part


def _spelled(path: Sequence[str | int]) -> str:
    """Return a path as people write it: messages[0].content."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _fields(model: type[BaseModel], raw: Any, path: Sequence[str | int]) -> list[str]:
    """Return the fields that the object at path may have, read from the model's JSON schema."""
    schema = _schema(model)
    nodes = _objects(schema, schema)
    for part in path:
        raw = raw[part]
        below = [node["items"] if isinstance(part, int) else node.get("properties", {}).get(part, {}) for node in nodes]
        nodes = [found for node in below for found in _objects(schema, node)]
        for name, tag in _tags_of(raw):
            nodes = [node for node in nodes if tag in _allowed(node, name)] or nodes
    return sorted({name for node in nodes for name in node.get("properties", {})})


@cache
def _schema(model: type[BaseModel]) -> Json:
    return model.model_json_schema()


def _objects(root: Json, node: Json) -> list[Json]:
    """Return the objects and arrays that a schema node may be, references followed."""
    if "$ref" in node:
        return _objects(root, root["$defs"][node["$ref"].rpartition("/")[2]])
    options = [option for key in ("anyOf", "oneOf") for option in node.get(key, ())]
    if options:
        return [found for option in options for found in _objects(root, option)]
    return [node] if "properties" in node or "items" in node else []


def _allowed(node: Json, name: str) -> list[str]:
    """Return the values that a schema allows for the field that tells its object apart from others."""
    field = node.get("properties", {}).get(name, {})
    return field.get("enum") or [field.get("const")]


def _tags_of(raw: Any) -> list[tuple[str, str]]:
    """Return the fields that tell this value apart from others in a union, with what they say."""
    if not isinstance(raw, dict):
        return []
    return [(name, tag) for name in ("role", "type") if isinstance(tag := raw.get(name), str)]
