"""Whether requests are answered now, by which version, and how exactly. For people and balancers, not for probes."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from glm_edge.version import VERSION
from glm_worker.server.backend import Backend
from glm_worker.server.edge.openapi import described


def add_probes(router: APIRouter, backend: Backend) -> None:
    """Add /health, /ping and /version. Probes may ask by HEAD."""
    told = described("Tell whether requests are answered", surface="Utilities", answers=["Health"])

    @router.head("/health", include_in_schema=False)
    @router.head("/ping", include_in_schema=False)
    @router.get("/health", **told)
    @router.get("/ping", **told)
    async def health() -> Response:
        if (obstacle := backend.flights.obstacle) is not None:
            raise obstacle
        return JSONResponse({"status": "ok"})

    @router.head("/version", include_in_schema=False)
    @router.get("/version", **described("Tell the version of the worker", surface="Utilities", answers=["Version"]))
    async def show_version() -> Response:
        return JSONResponse({"version": VERSION, "deterministic": backend.flights.deterministic})
