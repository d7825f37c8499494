"""The description of the gateway's API: what workers say of theirs, what the gateway adds, and its own pages. Pure.

Bodies and answers of the models' APIs are the workers' business, so they are described in their words; where no worker
could be asked, only in these: a JSON object. What a gateway does to a request beside it, keys and limits, is said of
every path.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from glm_edge.version import VERSION
from glm_gateway.access.decide import OPEN_PATHS, Mode
from glm_gateway.surfaces.routes import TRACES, Api, Kind, Route, paths

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": "integer", "minimum": 0}
_TOKENS = ("requests", "failed", "prompt_tokens", "cached_tokens", "answer_tokens", "thinking_tokens")


def _object(optional: Json | None = None, /, **required: Json) -> Json:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{_NAME_OF_OURS}{name}"}


_NAME_OF_OURS = "Gateway."
_SUM: Json = {**dict.fromkeys(_TOKENS, _COUNT), "cost": _STRING, "seconds": {"type": "number", "minimum": 0}}
_DAY: Json = {"type": "string", "format": "date"}
_SCHEMAS: Json = {
    "OpenAI.Model": _object(
        {"max_model_len": _COUNT}, id=_STRING, object={"const": "model"}, created=_COUNT, owned_by=_STRING
    ),
    "OpenAI.ModelList": _object(object={"const": "list"}, data=_list(_reference("OpenAI.Model"))),
    "Anthropic.Model": _object(
        {"max_input_tokens": _COUNT, "max_tokens": _COUNT},
        type={"const": "model"},
        id=_STRING,
        display_name=_STRING,
        created_at={"type": "string", "format": "date-time"},
        lifecycle=_STRING,
    ),
    "Anthropic.ModelList": _object(
        data=_list(_reference("Anthropic.Model")),
        has_more={"type": "boolean"},
        first_id=_TEXT_OR_NULL,
        last_id=_TEXT_OR_NULL,
    ),
    "Health": _object(status=_STRING),
    "Version": _object(version=_STRING),
    "Usage": _object(
        object={"const": "usage"},
        key=_STRING,
        start=_DAY,
        end=_DAY,
        journal={
            "type": "string",
            "description": "The id of the journal that this is of. Replicas that share it tell the same.",
        },
        data=_list(_object(day=_DAY, model=_STRING, **_SUM)),
        total=_object(**_SUM),
    ),
    "Trace": _object(
        {"events_missing": {"type": "integer"}},
        object={"const": "trace"},
        id=_STRING,
        path=_STRING,
        model=_TEXT_OR_NULL,
        arrived={"type": "string", "format": "date-time"},
        is_over={"type": "boolean"},
        events=_list(_object(at_s={"type": "number"}, what=_STRING)),
    ),
    "Error.openai": _object(error=_object(message=_STRING, type=_STRING, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL)),
    "Error.anthropic": _object(
        {"request_id": _STRING},
        type={"const": "error"},
        error=_object({"details": _object(error_code=_STRING)}, type=_STRING, message=_STRING),
    ),
    "Error.zai": _object(error=_object(code={"type": "string", "pattern": "^[0-9]+$"}, message=_STRING)),
}

_KEYS: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The secret of a key, or a token."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The secret of a key."},
}
_REQUEST_ID: Json = {"x-request-id": {"schema": _STRING, "description": "The client's own, or a new one."}}
_RETRY_AFTER: Json = {"retry-after": {"schema": {"type": "integer"}, "description": "Seconds until the next try."}}
_BAD_KEY = {"401": "The request has no key that is known here, or one that is over."}
_FORBIDDEN = {"403": "The judge of callers does not allow this."}
_UNKNOWN_CALLER = {"503": "Nothing can say now whose key this is; `retry-after` says when to try again."}
_ALWAYS = {
    "400": "The request is refused; the message names the field.",
    "408": "The request did not come in time.",
    "415": "The body has a `Content-Encoding`.",
    "431": "The head of the request is too large.",
    "500": "The gateway made a mistake.",
    "501": "The body has a `Transfer-Encoding` other than `chunked`.",
}
_OF_GROUPS = {
    "404": "There is no such model, or nothing else of that name.",
    "413": "The body is too large.",
    "429": "A limit of the key is reached; `retry-after` says when it has room again.",
    "502": "A server outside did not answer; `retry-after` says when to try again.",
    "503": "No group takes the request now, or the one that wrote the answer was lost.",
    "504": "The deadline of the request passed while it waited for a group.",
}
_WITH_RETRY = ("429", "502", "503", "529")


def document(of_worker: Mapping[str, Any] | None, *, mode: Mode, has_usage: bool, has_traces: bool = False) -> Json:
    """Return the description, OpenAPI 3.1. of_worker: what a worker says of itself; None: none could be asked.

    Anybody may read it, so it names no model.
    """
    known = of_worker or {}
    found: Json = {}
    for path, each in paths():
        if each.kind is Kind.OWN or each.kind is Kind.MODELS:
            continue
        said = known.get("paths", {}).get(path, {})
        found[path] = {
            method.lower(): _of_group(said.get(method.lower()), path, each, mode)
            for method in each.methods
            if method != "HEAD"
        }
    found |= _own(mode, has_usage=has_usage, has_traces=has_traces)
    schemas = known.get("components", {}).get("schemas", {})
    components: Json = {"schemas": {**schemas, **{f"{_NAME_OF_OURS}{name}": each for name, each in _SCHEMAS.items()}}}
    whole: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "GLM gateway",
            "version": VERSION,
            "description": _description(mode, has_worker=of_worker is not None),
        },
        "paths": found,
        "components": components,
    }
    if mode is not Mode.NONE:
        components["securitySchemes"] = _KEYS
        whole["security"] = [{name: []} for name in _KEYS]
    return whole


def _description(mode: Mode, *, has_worker: bool) -> str:
    keys = "no key is asked for" if mode is Mode.NONE else "every path but those marked asks for a key"
    unknown = "" if has_worker else " No worker could be asked: bodies and answers of models are not described."
    return (
        f"One address for models, which `/v1/models` lists. Here {keys}. Another path is a 404 and another"
        f" method a 405, in the form of the errors of the path's API.{unknown}"
    )


def _turned_away(mode: Mode) -> dict[str, str]:
    """Return what may become of a request whose caller is asked for."""
    return {} if mode is Mode.NONE else {**_BAD_KEY, **(_FORBIDDEN if mode is Mode.JUDGE else {})}


def _of_group(said: Json | None, path: str, of: Route, mode: Mode) -> Json:
    """Return one operation that a group answers."""
    found: Json = dict(said) if said else _unsaid(path, of)
    errors = {**_ALWAYS, **_OF_GROUPS, **_turned_away(mode)}
    if of.api is Api.ANTHROPIC:
        errors["529"] = _OF_GROUPS["503"]
    found["responses"] = {**_errors(errors, (of.api,)), **found["responses"]}
    return found


def _unsaid(path: str, of: Route) -> Json:
    """Return an operation of which only the path is known."""
    content: Json = {"application/json": {"schema": {"type": "object"}}}
    found: Json = {
        "summary": path,
        "tags": [of.api],
        "responses": {"200": {"description": "The answer, in the form of its API.", "content": content}},
    }
    names = re.findall(r"\{(\w+)\}", path)
    if names:
        found["parameters"] = [_in_path(name) for name in names]
    elif "POST" in of.methods:
        found["requestBody"] = {"required": True, "content": content}
    return found


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _STRING}


def _own(mode: Mode, *, has_usage: bool, has_traces: bool) -> Json:
    """Return the paths that the gateway answers itself."""
    found: Json = {}
    for path, each in paths():
        if each.kind is Kind.MODELS:
            answer = "Model" if "{" in path else "ModelList"
            shapes = [Api.OPENAI, Api.ANTHROPIC] if each.api is Api.OPENAI else [each.api]
            answers = [f"{'Anthropic' if api is Api.ANTHROPIC else 'OpenAI'}.{answer}" for api in shapes]
            operation = _page("Tell one model" if "{" in path else "List the models", answers, shapes, path, mode)
            if "{" in path:
                operation["parameters"] = [_in_path("name")]
                operation["responses"] |= _errors({"404": _OF_GROUPS["404"]}, shapes)
            found[path] = {"get": operation}
    for path in ("/health", "/ping"):
        health = _page("Tell whether requests are taken", ["Health"], [Api.OPENAI], path, mode)
        health["responses"]["503"] = {**health["responses"]["200"], "description": "No model is configured."}
        found[path] = {"get": health}
    found["/version"] = {"get": _page("Tell the gateway's version", ["Version"], [Api.OPENAI], "/version", mode)}
    if has_usage:
        usage = _page("Tell what the caller's key has used", ["Usage"], [Api.OPENAI], "/v1/usage", mode)
        usage["parameters"] = [
            {"name": "start", "in": "query", "schema": _DAY, "description": "The first day, in UTC."},
            {"name": "end", "in": "query", "schema": _DAY, "description": "The last day, in UTC."},
        ]
        found["/v1/usage"] = {"get": usage}
    if has_traces:
        path = TRACES + "{request_id}"
        trace = _page("Tell what happened to a request of the caller's key", ["Trace"], [Api.OPENAI], path, mode)
        trace["parameters"] = [_in_path("request_id")]
        trace["responses"] |= _errors({"404": "No such request of this key is kept."}, [Api.OPENAI])
        found[path] = {"get": trace}
    return found


def _page(summary: str, answers: list[str], apis: Iterable[Api], path: str, mode: Mode) -> Json:
    schemas = [_reference(name) for name in answers]
    content = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas}}}
    is_open = mode is Mode.NONE or path in OPEN_PATHS
    errors = {**_ALWAYS, **({} if is_open else {**_turned_away(mode), **_UNKNOWN_CALLER})}
    found: Json = {
        "summary": summary,
        "tags": ["Gateway"],
        "responses": {
            **_errors(errors, tuple(apis)),
            "200": {"description": "The answer.", "content": content, "headers": _REQUEST_ID},
        },
    }
    return found | ({"security": []} if path in OPEN_PATHS else {})


def _errors(said: dict[str, str], apis: Iterable[Api]) -> Json:
    schemas = [_reference(f"Error.{api}") for api in apis]
    content = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
    return {
        status: {
            "description": text,
            "content": content,
            "headers": {**_REQUEST_ID, **(_RETRY_AFTER if status in _WITH_RETRY else {})},
        }
        for status, text in said.items()
    }
