"""Which page a path is, for whom."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from glm_edge.errors.failure import Failure
from glm_edge.version import VERSION
from glm_gateway.access.decide import Caller
from glm_gateway.pages.models import models_page
from glm_gateway.pages.page import Page, of_json
from glm_gateway.surfaces.routes import Kind, Route
from glm_gateway.usage.service import UsageService


@dataclass(frozen=True, kw_only=True)
class Pages:
    """names: of the models that clients may ask for, now. usage: None: nothing is written down."""

    names: Callable[[], Iterable[str]]
    usage: UsageService | None = None

    async def page(self, found: Route, path: str, query: str, caller: Caller) -> Page | Failure:
        """Return the page of a path that is the gateway's own (Kind.MODELS, Kind.OWN), for who asks for it."""
        if found.kind is Kind.MODELS:
            return models_page(found.api, found.name, self.names())
        match path:
            case "/health":
                is_ready = any(True for _ in self.names())
                return of_json({"status": "ok" if is_ready else "no model is configured"}, 200 if is_ready else 503)
            case "/version":
                return of_json({"version": VERSION})
            case "/v1/usage" if self.usage is not None:
                asked = dict(parse_qsl(query))
                told = self.usage.answer(caller.name, asked.get("start"), asked.get("end"))
                return told if isinstance(told, Failure) else of_json(told)
        return Failure(404, f"{path[:100]}: this gateway does not tell it", "invalid_request_error", code="not_found")
