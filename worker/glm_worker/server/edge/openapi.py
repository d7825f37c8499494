"""The description of the API of this deployment: /openapi.json, and /docs, a page that needs no other host.

Routes read their bodies themselves, so each says here which model of a request it reads; the schemas of all surfaces
come together under names of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from glm_edge.version import VERSION
from glm_worker.server.edge.answer_schemas import ANSWERS, ERROR_SCHEMAS, ERRORS, components, reference

Json = dict[str, Any]

_PAGE_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_METHODS = ("get", "post", "put", "delete")
_MODEL = "x-model"  # stands for its schema until somebody asks: all of them take a tenth of a second, at every start


def described(
    summary: str,
    *,
    surface: str,
    answers: Sequence[str],
    others: Sequence[str] = (),
    reads: type[BaseModel] | None = None,
    examples: Mapping[str, Json] | None = None,
    query: Mapping[str, Json] | None = None,
    streams: bool = False,
    thinks: bool = False,
    finds: bool = False,
) -> Json:
    """Return what a route's decorator takes to describe it.

    answers: names of ANSWER_SCHEMAS, of which an answer has one. others: surfaces that have the same path. reads: the
    model of its body. examples: bodies by name, each of which the server accepts. query: schemas of the parameters of
    the query. streams: whether `stream: true` is answered by server-sent events. thinks: whether it is decided about
    thinking. finds: whether the path names something that may not be there.
    """
    content: Json = {"application/json": {"schema": reference(ANSWERS, list(answers))}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    told = ["x-request-id", *(["x-glm-thinking"] if thinks else []), *(["x-glm-ignored"] if reads or streams else [])]
    responses = {"200": {"description": "The answer.", "content": content, "headers": _headers(*told)}}
    read = ["x-request-id", *(["x-glm-auto-threshold"] if thinks else [])]
    read += [_VERSION_HEADER] if "Anthropic" in others else []
    parameters = [{"name": name, "in": "query", "schema": schema} for name, schema in (query or {}).items()]
    parameters += [{"name": name, "in": "header", "schema": _REQUEST_HEADERS[name]} for name in read]
    extra: Json = {"responses": responses | _errors(surface, others, reads=reads, streams=streams, finds=finds)}
    extra["parameters"] = parameters
    if reads is not None:
        media: Json = {"schema": {_MODEL: f"{reads.__module__}:{reads.__qualname__}"}}
        if examples:
            media["examples"] = {name: {"value": value} for name, value in examples.items()}
        extra["requestBody"] = {"required": True, "content": {"application/json": media}}
    return {"summary": summary, "tags": [surface], "openapi_extra": extra}


_ELSEWHERE = "Another path is a 404 and another method a 405, in the form of the errors of the path's surface."
_VERSION_HEADER = "anthropic-version"  # where two surfaces have one path, it asks for Anthropic's
_REQUEST_HEADERS: Json = {
    "x-request-id": {"type": "string", "description": "1 to 128 visible ASCII characters, sent back."},
    "x-glm-auto-threshold": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "description": "`auto` thinks from this score on.",
    },
    _VERSION_HEADER: {"type": "string", "description": "With it the answer has the shape of Anthropic's API."},
}
_RESPONSE_HEADERS: Json = {
    "x-request-id": {"type": "string", "description": "The client's own, or a new one."},
    "x-glm-thinking": {"type": "string", "description": "How a chat was answered, and who decided."},
    "x-glm-ignored": {"type": "string", "description": "Fields of the request that have no effect here."},
    "retry-after": {"type": "integer", "description": "Seconds until the next try."},
}


def _headers(*names: str) -> Json:
    return {name: {"schema": _RESPONSE_HEADERS[name]} for name in names}


_ALWAYS = {
    "400": "The request is refused; the message names the field.",
    "408": "The request did not come in time.",
    "415": "The body has a `Content-Encoding`.",
    "431": "The head of the request is too large.",
    "500": "The server made a mistake.",
    "501": "The body has a `Transfer-Encoding` other than `chunked`.",
    "503": "The queue or the server is full, or no group serves; `retry-after` says when to try again.",
}
_OF_BODIES = {
    "404": "There is no such model, or nothing else of that name.",
    "413": "The body is too large.",
}
_LATE = "The answer was not complete within the time that the request allows."
_OVERLOADED = {"Anthropic": "529"}  # beside 503, where a surface has a status of its own


def _errors(surface: str, others: Sequence[str], *, reads: type[BaseModel] | None, streams: bool, finds: bool) -> Json:
    """Return the error responses of an operation. A method that a path lacks is no operation, so 405 is not here."""
    said = dict(_ALWAYS)
    said |= _OF_BODIES if reads else {"404": _OF_BODIES["404"]} if finds else {}
    said |= {"504": _LATE} if reads and streams else {}
    said |= {_OVERLOADED[each]: _ALWAYS["503"] for each in (surface, *others) if each in _OVERLOADED}
    names = [each if each in ERROR_SCHEMAS else "OpenAI" for each in (surface, *others)]
    content = {"application/json": {"schema": reference(ERRORS, names)}}
    return {
        status: {
            "description": text,
            "content": content,
            "headers": _headers("x-request-id", *(["retry-after"] if status in ("503", "529") else [])),
        }
        for status, text in sorted(said.items())
    }


def add_description(app: FastAPI, *, title: str, description: Callable[[], str], without: Sequence[str] = ()) -> None:
    """Serve /openapi.json and /docs. description: of the deployment as it is now, in Markdown.

    without: parts of paths that are not served here, though they are known.
    """
    router = APIRouter()

    def document() -> Json:
        found = get_openapi(
            title=title,
            version=VERSION,
            openapi_version="3.1.0",
            description=f"{description()}\n\n{_ELSEWHERE}",
            routes=app.routes,
        )
        found["paths"] = {
            path: said for path, said in found["paths"].items() if not any(part in path for part in without)
        }
        return _completed(_hoisted(found))

    @router.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:  # in a thread: it takes a while
        return JSONResponse(document())

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
        )

    for name, media_type in _PAGE_FILES.items():
        router.add_api_route(f"/docs/{name}", _file(name, media_type), include_in_schema=False)
    app.include_router(router)


def _file(name: str, media_type: str) -> Callable[[], Any]:
    async def page_file() -> Response:
        content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
        return Response(content, media_type=media_type, headers={"cache-control": "max-age=86400"})

    return page_file


def _completed(document: Json) -> Json:
    """Return the document with the schemas of answers, and without what FastAPI says of parameters: never a 422."""
    schemas: Json = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= components()
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("422", None)
    return document


def _hoisted(document: Json) -> Json:
    """Return the document with the schemas inside of request bodies among its components, by surface."""
    schemas: Json = document.setdefault("components", {}).setdefault("schemas", {})
    for item in document["paths"].values():
        for method in _METHODS:
            operation = item.get(method, {})
            media = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if media is None:
                continue
            prefix = operation["tags"][0].replace(" ", "")
            schema = _model(media["schema"][_MODEL]).model_json_schema()
            name = f"{prefix}.{schema.get('title', 'Request')}"
            schemas |= {
                f"{prefix}.{inner}": _renamed(value, prefix) for inner, value in schema.get("$defs", {}).items()
            }
            schemas[name] = _renamed({key: value for key, value in schema.items() if key != "$defs"}, prefix)
            media["schema"] = {"$ref": f"#/components/schemas/{name}"}
    return document


def _model(name: str) -> type[BaseModel]:
    module, _, of_class = name.partition(":")
    found: type[BaseModel] = getattr(import_module(module), of_class)
    return found


def _renamed(value: Any, prefix: str) -> Any:
    """Return a schema whose references point to the components."""
    match value:
        case dict():
            return {
                key: f"#/components/schemas/{prefix}.{each.rpartition('/')[2]}"
                if key == "$ref"
                else _renamed_mapping(each, prefix)
                if key == "discriminator"
                else _renamed(each, prefix)
                for key, each in value.items()
            }
        case list():
            return [_renamed(each, prefix) for each in value]
        case _:
            return value


def _renamed_mapping(discriminator: Json, prefix: str) -> Json:
    mapping = {
        value: f"#/components/schemas/{prefix}.{ref.rpartition('/')[2]}"
        for value, ref in discriminator.get("mapping", {}).items()
    }
    return {**discriminator, "mapping": mapping}
