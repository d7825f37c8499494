"""The management port has no authentication, so nothing that it serves may change the group."""

from starlette.routing import Route

from glm_worker.supervisor.health import management_app


class IdleRole:
    """A role that is asked nothing here."""

    is_ready = True
    state = "serving"

    async def group(self) -> dict[str, object]:
        return {}

    async def metrics(self) -> str:
        return ""


def test_every_route_only_reads() -> None:
    routes = [route for route in management_app(IdleRole()).routes if isinstance(route, Route)]
    assert {route.path: route.methods for route in routes} == {
        path: {"GET", "HEAD"} for path in ("/livez", "/readyz", "/metrics", "/group")
    }
