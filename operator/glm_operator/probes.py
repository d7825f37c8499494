"""/livez and /metrics of the operator, on one port."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from glm_operator.handlers.loop import Loop


def build_app(loop: Loop) -> web.Application:
    """Return the HTTP application. It reads what the loop says of itself and calls nothing else."""

    async def livez(_: web.Request) -> web.Response:
        ages = f"last pass {loop.pass_age_s():.1f} s ago, last list {loop.list_age_s():.1f} s ago"
        return web.Response(status=200 if loop.is_alive else 503, text=f"{ages}, {len(loop.queue)} waiting\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(loop.telemetry.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/metrics", metrics)])
    return app


async def serve(loop: Loop, port: int) -> web.AppRunner:
    """Start serving; the caller cleans the runner up."""
    runner = web.AppRunner(build_app(loop), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - probes and Prometheus come from outside the pod
    return runner
