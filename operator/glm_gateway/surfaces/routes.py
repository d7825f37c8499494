"""Which path is which API, and what is done with it. What is not in this list reaches no worker.

A path is taken as it was decoded once, and compared whole: nothing is cleaned up, so `//v1/models` and `/v1/./models`
are nobody's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Api(StrEnum):
    """Whose words errors have."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    ZAI = "zai"


class Kind(StrEnum):
    """GENERATE: a group writes an answer. COUNT: a group reads a body and writes none.

    STORED: about a response that one group keeps. MODELS: which models there are. OWN: the gateway's own affairs.
    """

    GENERATE = "generate"
    COUNT = "count"
    STORED = "stored"
    MODELS = "models"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Route:
    """methods: that are allowed. name: of a path with a part that varies, that part; else empty."""

    api: Api
    kind: Kind
    methods: tuple[str, ...]
    name: str = ""


DOCS_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
"""That the page /docs is made of."""

TRACES = "/v1/traces/"
"""Of single requests: then comes the id of one, which may have any visible sign in it."""

_POST, _GET = ("POST",), ("GET", "HEAD")

_ZAI = ("/api/paas/v4", "/api/coding/paas/v4")
_ANTHROPIC = ("", "/api/anthropic")

_EXACT: dict[str, Route] = {
    "/v1/chat/completions": Route(Api.OPENAI, Kind.GENERATE, _POST),
    "/v1/completions": Route(Api.OPENAI, Kind.GENERATE, _POST),
    "/v1/responses": Route(Api.OPENAI, Kind.GENERATE, _POST),
    "/v1/models": Route(Api.OPENAI, Kind.MODELS, _GET),
    "/tokenize": Route(Api.OPENAI, Kind.COUNT, _POST),
    "/detokenize": Route(Api.OPENAI, Kind.COUNT, _POST),
    "/health": Route(Api.OPENAI, Kind.OWN, _GET),
    "/ping": Route(Api.OPENAI, Kind.OWN, _GET),
    "/version": Route(Api.OPENAI, Kind.OWN, _GET),
    "/openapi.json": Route(Api.OPENAI, Kind.OWN, _GET),
    "/docs": Route(Api.OPENAI, Kind.OWN, _GET),
    **{f"/docs/{name}": Route(Api.OPENAI, Kind.OWN, _GET) for name in DOCS_FILES},
    "/v1/usage": Route(Api.OPENAI, Kind.OWN, _GET),
    **{f"{path}/chat/completions": Route(Api.ZAI, Kind.GENERATE, _POST) for path in _ZAI},
    **{f"{path}/models": Route(Api.ZAI, Kind.MODELS, _GET) for path in _ZAI},
    **{f"{path}/v1/messages": Route(Api.ANTHROPIC, Kind.GENERATE, _POST) for path in _ANTHROPIC},
    **{f"{path}/v1/messages/count_tokens": Route(Api.ANTHROPIC, Kind.COUNT, _POST) for path in _ANTHROPIC},
    "/api/anthropic/v1/models": Route(Api.ANTHROPIC, Kind.MODELS, _GET),
}
_MODELS = {
    "/v1/models/": Api.OPENAI,
    "/api/anthropic/v1/models/": Api.ANTHROPIC,
    **{f"{path}/models/": Api.ZAI for path in _ZAI},
}
_RESPONSE = re.compile(r"/v1/responses/(?P<id>[A-Za-z0-9._-]{1,128})(?P<what>/cancel|/input_items)?")
_OF_RESPONSE = {None: ("GET", "DELETE"), "/cancel": _POST, "/input_items": ("GET",)}  # workers have no HEAD of them
_WORDS = (("/v1/messages", Api.ANTHROPIC), ("/api/anthropic", Api.ANTHROPIC), *((path, Api.ZAI) for path in _ZAI))


def route(path: str, *, speaks_anthropic: bool = False) -> Route | None:
    """Return what a path is; None: it is nobody's.

    speaks_anthropic: the client says so by a header, which decides where two APIs share a path.
    """
    found = _EXACT.get(path)
    if found is None:
        found = _of_response(path) or _of_model(path) or _of_trace(path)
    if found is not None and speaks_anthropic and found.kind is Kind.MODELS and found.api is Api.OPENAI:
        return Route(Api.ANTHROPIC, found.kind, found.methods, found.name)
    return found


def paths() -> Iterator[tuple[str, Route]]:
    """Yield every path that is somebody's, and what it is; what varies in one is a name in braces."""
    yield from _EXACT.items()
    for beginning, api in _MODELS.items():
        yield beginning + "{name}", Route(api, Kind.MODELS, _GET)
    for what, methods in _OF_RESPONSE.items():
        yield "/v1/responses/{response_id}" + (what or ""), Route(Api.OPENAI, Kind.STORED, methods)
    yield TRACES + "{request_id}", Route(Api.OPENAI, Kind.OWN, _GET)


def api_of(path: str) -> Api:
    """Return whose words an error at this path has, also where the path is nobody's."""
    return next((api for beginning, api in _WORDS if path.startswith(beginning)), Api.OPENAI)


def _of_response(path: str) -> Route | None:
    match = _RESPONSE.fullmatch(path)
    return match and Route(Api.OPENAI, Kind.STORED, _OF_RESPONSE[match["what"]], match["id"])


def _of_trace(path: str) -> Route | None:
    id_ = path.removeprefix(TRACES)
    return Route(Api.OPENAI, Kind.OWN, _GET, id_) if path.startswith(TRACES) and 0 < len(id_) <= 128 else None


def _of_model(path: str) -> Route | None:
    for beginning, api in _MODELS.items():
        if path.startswith(beginning) and len(path) > len(beginning):
            return Route(api, Kind.MODELS, _GET, path[len(beginning) :])
    return None
