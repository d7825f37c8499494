"""Whether requests are answered now, and by which version. For people and balancers; pods are probed elsewhere."""

from importlib.metadata import version

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from glm_worker.server.backend import Backend

_PACKAGE = "glm-operator"


def add_probes(router: APIRouter, backend: Backend) -> None:
    """Add /health, /ping and /version."""

    async def health() -> Response:
        if (obstacle := backend.flights.obstacle) is not None:
            raise obstacle
        return JSONResponse({"status": "ok"})

    router.add_api_route("/health", health, methods=["GET"])
    router.add_api_route("/ping", health, methods=["GET"])

    @router.get("/version")
    async def show_version() -> Response:
        return JSONResponse({"version": version(_PACKAGE)})
