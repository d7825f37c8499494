"""The description of the API of this deployment: /openapi.json, and /docs, a page that needs no other host.

Routes read their bodies themselves, so each says here which model of a request it reads; the schemas of all surfaces
come together under names of their own.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel

Json = dict[str, Any]

_PAGE_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
_METHODS = ("get", "post", "put", "delete")


def described(
    summary: str,
    *,
    surface: str,
    reads: type[BaseModel] | None = None,
    examples: Mapping[str, Json] | None = None,
    streams: bool = False,
    text: str = "",
) -> Json:
    """Return what a route's decorator takes to describe it.

    reads: the model of its body. examples: bodies by name, each of which the server accepts. streams: whether
    `stream: true` is answered by server-sent events.
    """
    content: Json = {"application/json": {"schema": {"type": "object"}}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    extra: Json = {"responses": {"200": {"description": "The answer.", "content": content}}}
    if reads is not None:
        media: Json = {"schema": reads.model_json_schema()}
        if examples:
            media["examples"] = {name: {"value": value} for name, value in examples.items()}
        extra["requestBody"] = {"required": True, "content": {"application/json": media}}
    return {"summary": summary, "description": text, "tags": [surface], "openapi_extra": extra}


def add_description(app: FastAPI, *, title: str, description: Callable[[], str]) -> None:
    """Serve /openapi.json and /docs. description: of the deployment as it is now, in Markdown."""
    router = APIRouter()

    def document() -> Json:
        found = get_openapi(
            title=title,
            version=version("glm-operator"),
            openapi_version="3.1.0",
            description=description(),
            routes=app.routes,
        )
        return _with_errors(_hoisted(found))

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
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


_REFUSED = {
    "400": "The request is refused; the message names the field.",
    "404": "There is no such model, or nothing else of that name.",
}
_ERRORS_OF_BODIES = {
    **_REFUSED,
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "500": "The server made a mistake.",
    "504": "The answer was not complete within the time that the request allows.",
}
_BUSY = "The queue is full or no group serves; `retry-after` says when to try again."
_BUSY_STATUS = {"Anthropic": "529"}  # of other surfaces: 503


def _with_errors(document: Json) -> Json:
    """Return the document with the errors that all operations of a kind have."""
    for path, item in document["paths"].items():
        for method in _METHODS:
            if (operation := item.get(method)) is None:
                continue
            responses: Json = operation["responses"]
            responses.pop("422", None)  # what FastAPI says of every parameter, and what never comes
            busy = {"503": _BUSY}
            busy |= {_BUSY_STATUS.get(tag, "503"): _BUSY for tag in operation.get("tags", ())}
            errors = {**_ERRORS_OF_BODIES, **busy} if "requestBody" in operation else _REFUSED if "{" in path else busy
            responses |= {status: _error(text) for status, text in errors.items() if status not in responses}
    return document


def _error(description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}


def _hoisted(document: Json) -> Json:
    """Return the document with the schemas inside of request bodies among its components, by surface."""
    schemas: Json = document.setdefault("components", {}).setdefault("schemas", {})
    for item in document["paths"].values():
        for method in _METHODS:
            operation = item.get(method, {})
            media = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if media is None or "$ref" in media["schema"]:
                continue
            prefix = operation["tags"][0].replace(" ", "")
            schema = media["schema"]
            name = f"{prefix}.{schema.get('title', 'Request')}"
            schemas |= {
                f"{prefix}.{inner}": _renamed(value, prefix) for inner, value in schema.get("$defs", {}).items()
            }
            schemas[name] = _renamed({key: value for key, value in schema.items() if key != "$defs"}, prefix)
            media["schema"] = {"$ref": f"#/components/schemas/{name}"}
    return document


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
