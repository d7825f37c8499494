"""Which page a path is, for whom."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from glm_edge.errors.failure import Failure
from glm_edge.version import VERSION
from glm_gateway.access.decide import Caller, Mode
from glm_gateway.pages.docs import docs_file, docs_page
from glm_gateway.pages.document import document
from glm_gateway.pages.models import Lengths, models_page
from glm_gateway.pages.page import Page, of_json
from glm_gateway.surfaces.routes import TRACES, Kind, Route
from glm_gateway.traces.traces import Traces
from glm_gateway.usage.service import UsageService

KEEP_S = 60.0
"""For so long a description is told again as it is: anybody may ask for it, and it takes a worker some time."""

KEEP_NONE_S = 1.0
"""Where no worker could be asked."""

OfWorker = Callable[[], Awaitable[Mapping[str, Any] | None]]


async def no_worker() -> None:
    """There is none that could be asked."""


@dataclass(kw_only=True)
class Pages:
    """names: of the models that clients may ask for now, each with the most tokens of prompt and answer together.

    began: when this gateway did, in seconds of the epoch. usage: None: nothing is written down. mode: who may ask.
    of_worker: asks a worker for the description of its API; None: none could be asked. Use it from one event loop.
    """

    names: Callable[[], Lengths]
    mode: Mode
    began: int = field(default_factory=lambda: int(time.time()))
    usage: UsageService | None = None
    of_worker: OfWorker = no_worker
    traces: Traces | None = None

    def __post_init__(self) -> None:
        self._describing = asyncio.Lock()
        self._described: tuple[float, Page] | None = None  # until when it is kept

    async def page(self, found: Route, path: str, query: str, caller: Caller) -> Page | Failure:
        """Return the page of a path that is the gateway's own (Kind.MODELS, Kind.OWN), for who asks for it."""
        if found.kind is Kind.MODELS:
            return models_page(found.api, found.name, self.names(), created=self.began)
        match path:
            case "/health" | "/ping":
                is_ready = bool(self.names())
                return of_json({"status": "ok" if is_ready else "no model is configured"}, 200 if is_ready else 503)
            case "/version":
                return of_json({"version": VERSION})
            case "/v1/usage":
                return self._usage(query, caller)
            case "/openapi.json":
                return await self._description()
            case "/docs":
                return docs_page()
        if path.startswith(TRACES):
            return self._trace(found.name, caller)
        page = docs_file(path.removeprefix("/docs/"))
        return page or _not_told(f"{path[:100]}: it is not part of this image")

    def _usage(self, query: str, caller: Caller) -> Page | Failure:
        if self.usage is None:
            return _not_told("/v1/usage: this gateway writes no usage down")
        asked = dict(parse_qsl(query, keep_blank_values=True))
        for name in asked.keys() - {"start", "end"}:
            sentence = f"{name[:64]!r} is no parameter of /v1/usage; there are start and end"
            return Failure(400, sentence, "invalid_request_error", name[:64], "unknown_parameter")
        told = self.usage.answer(caller.name, asked.get("start"), asked.get("end"))
        return told if isinstance(told, Failure) else of_json(told)

    def _trace(self, request_id: str, caller: Caller) -> Page | Failure:
        if self.traces is None:
            return _not_told("this gateway keeps no traces; trace.enabled is off")
        trace = self.traces.find(caller.name, request_id, asyncio.get_running_loop().time())
        if trace is None:
            return _not_told(f"no trace of a request {request_id[:128]!r} of this key is kept in this replica")
        return of_json(trace.told())

    async def _description(self) -> Page:
        clock = asyncio.get_running_loop().time
        async with self._describing:
            if self._described is not None and clock() < self._described[0]:
                return self._described[1]
            of_worker = await self.of_worker()
            told = {"has_usage": self.usage is not None, "has_traces": self.traces is not None}
            page = of_json(document(of_worker, mode=self.mode, **told))
            self._described = (clock() + (KEEP_S if of_worker is not None else KEEP_NONE_S), page)
        return page


def _not_told(sentence: str) -> Failure:
    return Failure(404, sentence, "invalid_request_error", code="not_found")
