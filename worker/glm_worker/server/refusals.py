"""Errors as clients see them: every failure has a status, a sentence and a code; a surface writes its body.

Also turns what pydantic found wrong with a request into a sentence that names the field, its value and what is allowed.
What is prompt, or may be, is never told back: errors end in the logs of gateways.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from glm_edge.errors.failure import Failure
from glm_worker.errors import AnswerFailed, DeadlinePassed, GenerationLost, Overloaded, RequestRefused

Request = TypeVar("Request", bound=BaseModel)
Json = dict[str, Any]

MAX_ECHO = 100
MAX_ALLOWED = 24  # names of fields in one sentence
_MAX_MISTAKES = 1000

_PROMPTS = {"messages", "prompt", "suffix", "input", "instructions", "system", "tools", "stop", "stop_sequences"}
_PROMPTS |= {"bad_words", "metadata", "user", "user_id", "safety_identifier", "structured_outputs", "text"}
_PROMPTS |= {"response_format", "guided_json", "guided_regex", "guided_choice", "output_config", "tokens"}
_WORD = re.compile(r"[\w.:/+-]{1,64}")  # what may be told of a value: no sentence
_KINDS = {"role", "type"}  # fields that tell what an object is
_MEDIA = {"image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video", "video_url", "input_video"}
_MEDIA |= {"file", "input_file", "document"}


def failure_of(error: Exception) -> Failure:
    """Return what to tell the client. An error that is not one of ours is told as an internal one, without its text."""
    match error:
        case RequestRefused():
            return Failure(error.status, error.message, "invalid_request_error", error.param, error.code)
        case Overloaded():
            return Failure(
                503, error.message, "service_unavailable", code="overloaded", retry_after_s=error.retry_after_s
            )
        case AnswerFailed():
            return Failure(500, str(error), "internal_error", code="answer_failed")
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
    """Return the refusal of a name that is not the served one. Empty: a path ends where a name was to come."""
    what = f"the model '{shortened(name)}' does not exist here"
    return RequestRefused(
        f"{what if name else 'no model is named'}; this server has '{served}'",
        param="model",
        code="model_not_found",
        status=404,
    )


def parse(model: type[Request], body: bytes) -> Request:
    """Return the request in a JSON body, or raise RequestRefused with a sentence about one thing wrong with it.

    model may have `refused`, a dict from the paths of fields that it does not know to what clients do instead.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MAX_MISTAKES:  # to list them takes seconds when there are a million
            raise RequestRefused(
                f"the body has {error.error_count()} mistakes, too many to name one", code="invalid_value"
            ) from error
        raise _refusal(model, body, error.errors(include_url=False)) from error


def json_in(text: str, param: str) -> Any:
    """Return the value that a parameter has as JSON text. Raises RequestRefused."""
    try:
        return from_json(text)
    except ValueError as error:
        raise _no_json(str(error), text.encode(errors="replace"), param) from error


def _refusal(model: type[BaseModel], body: bytes, details: Sequence[ErrorDetails]) -> RequestRefused:
    if details[0]["type"] == "json_invalid":
        return _no_json(details[0]["msg"].removeprefix("Invalid JSON: "), body)
    raw = from_json(body)
    if not isinstance(raw, dict):
        return RequestRefused("the body must be a JSON object", code="invalid_value")
    mistakes = _mistakes(raw, details)
    path, first = next(iter(mistakes.items()))
    refusal = _told(model, raw, path, first)
    if len(mistakes) > 1:
        more = len(mistakes) - 1
        refusal.message += f" (and {more} more mistake{'s' * (more > 1)})"
    return refusal


def _mistakes(raw: Json, details: Sequence[ErrorDetails]) -> dict[tuple[str | int, ...], list[ErrorDetails]]:
    """Return the mistakes by their path. Of the options of a union the one that was followed furthest was meant.

    What is wrong with an object of a kind that is not known is only its kind.
    """
    found: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for each in details:
        path = tuple(_json_path(raw, each["loc"], is_missing=each["type"] == "missing"))
        found.setdefault(path, []).append(each)
    is_followed = {path[:length] for path in found for length in range(len(path))}
    of_no_kind = {path[:-1] for path, (first, *_) in found.items() if path[-1:] and _is_kind(path, first)}
    return {
        path: each
        for path, each in found.items()
        if path not in is_followed and (path[:-1] not in of_no_kind or _is_kind(path, each[0]))
    } or {path: each for path, each in found.items() if path not in is_followed}


def _is_kind(path: tuple[str | int, ...], details: ErrorDetails) -> bool:
    return bool(path) and path[-1] in _KINDS and details["type"] in ("literal_error", "not_allowed")


_SIZES = ("too_long", "string_too_long", "too_short", "string_too_short")


def _told(
    model: type[BaseModel], raw: Json, path: tuple[str | int, ...], mistakes: Sequence[ErrorDetails]
) -> RequestRefused:
    """Return one mistake as a sentence. mistakes: all that was said about this place, by one option of a union each."""
    # A value that is too long for one option of a union is of its type, and of the others only not of theirs.
    details = next((each for each in mistakes if each["type"] in _SIZES), mistakes[0])
    param = shortened(_spelled(path)) or None
    match details["type"]:
        case "missing":
            return RequestRefused(f"{param} is missing", param=param, code="missing_required_parameter")
        case "union_tag_not_found":
            tag = f"{param}.{_discriminator(details)}"
            return RequestRefused(f"{tag} is missing", param=tag, code="missing_required_parameter")
        case "union_tag_invalid":
            name = _discriminator(details)
            return _of_no_kind((*path, name), details["input"][name], details["ctx"]["expected_tags"])
        case "extra_forbidden":
            return _unknown(model, raw, path)
        case "conflict":
            of_part = details["ctx"]["param"]
            where = shortened(_spelled((*path, of_part)))
            said = f"{param}: {details['msg']}" if path else details["msg"]
            return RequestRefused(said, param=where, code="invalid_value")
        case kind if kind in _SIZES:
            return RequestRefused(f"{param} has {_sizes(details)}", param=param, code="invalid_value")
        case "literal_error" if _is_kind(path, details):
            return _of_no_kind(path, details["input"], details["ctx"]["expected"])
    options = " or ".join(dict.fromkeys(_allowed_by(each) for each in mistakes))
    names_kind = _is_kind(path, details) and isinstance(details["input"], str)
    shown = _shown(() if names_kind else path, details["input"])
    said = f"{param} is {shown}; allowed: {options.removeprefix('allowed: ')}"
    return RequestRefused(said, param=param, code="invalid_value")


def _of_no_kind(path: tuple[str | int, ...], tag: object, expected: str) -> RequestRefused:
    """Return the refusal of an object by the field that tells what it is. Only a name is told back."""
    param = shortened(_spelled(path))
    said = f"{param} is {_shown(() if isinstance(tag, str) else path, tag)}"
    if isinstance(tag, str) and tag in _MEDIA:
        return RequestRefused(
            f"{said}, but this model reads text only: no images, audio, video or files; allowed: {expected}",
            param=param,
            code="unsupported_content",
        )
    return RequestRefused(f"{said}; allowed: {expected}", param=param, code="invalid_value")


def _unknown(model: type[BaseModel], raw: Json, path: tuple[str | int, ...]) -> RequestRefused:
    param, name = shortened(_spelled(path)), str(path[-1])
    hints: Mapping[str, str] = getattr(model, "refused", {})
    if (hint := hints.get(_spelled(path))) is not None:
        return RequestRefused(f"{param} is not supported: {hint}", param=param, code="unsupported_parameter")
    fields = _fields(model, raw, path[:-1])
    close = get_close_matches(name[:MAX_ECHO], fields, n=1, cutoff=0.75)
    if close:
        said = f"unknown field {param}; did you mean {close[0]}?"
    else:
        some = ", ".join(fields[:MAX_ALLOWED]) or "none"
        more = f", and {len(fields) - MAX_ALLOWED} more" if len(fields) > MAX_ALLOWED else ""
        said = f"unknown field {param}; allowed{' beside it' if path[:-1] else ''}: {some}{more}"
    return RequestRefused(said, param=param, code="unknown_parameter")


def _sizes(details: ErrorDetails) -> str:
    ctx, size = details["ctx"], len(details["input"])
    what = "character" if details["type"].startswith("string") else "item"
    allowed = f"at most {ctx['max_length']}" if "max_length" in ctx else f"at least {ctx['min_length']}"
    return f"{size} {what}{'s' * (size != 1)}; allowed: {allowed}"


_JSON_NAMES = {
    "string_type": "a string",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
}


def _allowed_by(details: ErrorDetails) -> str:
    """Return what would have been right."""
    ctx: Mapping[str, Any] = details.get("ctx", {})
    kind = details["type"]
    if kind in _JSON_NAMES:
        return _JSON_NAMES[kind]
    match kind:
        case "not_allowed":
            return details["msg"].removeprefix("allowed: ")
        case "literal_error":
            return str(ctx["expected"])
        case "string_pattern_mismatch":
            return f"text that matches {ctx['pattern']}"
        case "greater_than_equal":
            return f"{ctx['ge']} and above"
        case "greater_than":
            return f"above {ctx['gt']}"
        case "less_than_equal":
            return f"up to {ctx['le']}"
        case "less_than":
            return f"below {ctx['lt']}"
        case _:
            return details["msg"].removeprefix("Input should be ")


def _shown(path: tuple[str | int, ...], value: Any) -> str:
    """Return a value as a sentence can say it: only of what kind it is, where it is large or may be of a prompt."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"an array of {len(value)}"
        case dict():
            return "an object"
    if isinstance(value, str):
        is_told = _WORD.fullmatch(value) and not (path[:1] and path[0] in _PROMPTS)
        return repr(value) if is_told else f"a string of {len(value)} characters"
    if path[:1] and path[0] in _PROMPTS:
        return "a number"
    return "a number of more than 100 digits" if abs(value) > 10**MAX_ECHO else repr(value)


_NOT_PLAIN_JSON = (
    ("recursion limit", "is nested too deeply", "body_too_complex"),
    ("number out of range", "has a number out of range", "invalid_value"),
    ("unicode code point", "has bytes that are not UTF-8", "invalid_json"),
)
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def _no_json(cause: str, text: bytes, param: str | None = None) -> RequestRefused:
    """Return the refusal of a text that the parser does not take, with its cause and the place."""
    what = param or "the body"
    said, at, place = cause.rpartition(" at line ")
    where = f"{at}{place}"
    for sign, sentence, code in _NOT_PLAIN_JSON:
        if sign in said:
            return RequestRefused(f"{what} {sentence}{where}", param=param, code=code)
    if ("surrogate" in said or "hex escape" in said) and _LONE_SURROGATE.search(_before(text, place)):
        return RequestRefused(
            f"{what} has half of a surrogate pair, which is no character,{where}", param=param, code="invalid_value"
        )
    return RequestRefused(f"{what} is not valid JSON: {cause}", param=param, code="invalid_json")


def _before(text: bytes, place: str) -> bytes:
    """Return the characters before a place, as in `1 column 17`."""
    line, _, column = place.partition(" column ")
    lines = text.split(b"\n", int(line)) if line.isdecimal() else []
    end = int(column) if column.isdecimal() else 0
    return lines[int(line) - 1][max(end - 14, 0) : end + 1] if lines else b""


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
