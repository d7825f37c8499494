"""What JSON type a tool's argument has, by the tool's JSON schema, and how the model's text becomes that JSON.

The GLM format writes strings raw and everything else as JSON, so `12` is a string or a number as the schema says.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

ANY: frozenset[str] = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
STRING: frozenset[str] = frozenset({"string"})
_MAX_DEPTH = 32  # of nested references and combinations; past it a schema is taken to allow anything


def argument_types(parameters: Mapping[str, Any] | None, name: str) -> frozenset[str]:
    """Return the JSON types that a tool's parameters allow for the argument called name; ANY when they do not say."""
    root = parameters or {}
    resolved = _resolve(root, root, _MAX_DEPTH)
    properties = resolved.get("properties") if isinstance(resolved, Mapping) else None
    if not isinstance(properties, Mapping) or name not in properties:
        return ANY
    return _types(properties[name], root, _MAX_DEPTH)


def argument_json(text: str, types: frozenset[str]) -> str:
    """Return the argument as JSON text. What is not JSON, or is a string by its schema, becomes a JSON string.

    JSON is passed on as the model wrote it: numbers keep their spelling and their size.
    """
    if types == STRING:
        return json_string(text)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return json_string(text)
    if "string" in types and types != ANY and not _type_names(value) & (types - STRING):
        return json_string(text)
    return text.strip()


def json_string(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _types(schema: object, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    schema = _resolve(schema, root, depth)
    if not isinstance(schema, Mapping) or depth == 0:
        return ANY
    allowed = ANY
    if isinstance(declared := schema.get("type"), str):
        allowed &= {declared}
    elif isinstance(declared, list):
        allowed &= frozenset(str(name) for name in declared)
    if isinstance(values := schema.get("enum"), list):
        allowed &= frozenset(name for value in values for name in _type_names(value))
    if "const" in schema:
        allowed &= _type_names(schema["const"])
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list):
            allowed &= frozenset(name for option in options for name in _types(option, root, depth - 1))
    if isinstance(parts := schema.get("allOf"), list):
        for part in parts:
            allowed &= _types(part, root, depth - 1)
    return allowed or ANY


def _resolve(schema: object, root: Mapping[str, Any], depth: int) -> object:
    """Follow `$ref` inside the same document; one that leads nowhere allows anything."""
    while isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
        if depth == 0 or not reference.startswith("#"):
            return {}
        depth -= 1
        target: object = root
        for part in filter(None, reference.removeprefix("#").split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        schema = target
    return schema


def _type_names(value: object) -> frozenset[str]:
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number", "integer"} if value.is_integer() else {"number"})
        case str():
            return STRING
        case list():
            return frozenset({"array"})
        case _:
            return frozenset({"object"})
