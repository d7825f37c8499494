"""/livez and /metrics of the operator, on one port."""

import asyncio
import socket

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from glm_operator.handlers.loop import Loop


def build_app(loop: Loop) -> web.Application:
    """Return the HTTP application. It reads what the loop says of itself and calls nothing else."""

    async def livez(_: web.Request) -> web.Response:
        ages = f"last pass {loop.pass_age_s():.1f} s ago, last word of a watch {loop.silence_s():.1f} s ago"
        return web.Response(status=200 if loop.is_alive else 503, text=f"{ages}, {len(loop.queue)} waiting\n")

    async def metrics(_: web.Request) -> web.Response:
        # Of a thousand deployments they are a hundred thousand lines: no pass waits for that.
        body = await asyncio.to_thread(generate_latest, loop.telemetry.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/metrics", metrics)])
    return app


def _listen(port: int) -> socket.socket:
    """Return a socket at every address, of IPv6 as of IPv4: the kubelet probes the pod's first one."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


async def serve(loop: Loop, port: int) -> web.AppRunner:
    """Start serving; the caller cleans the runner up."""
    runner = web.AppRunner(build_app(loop), access_log=None)
    await runner.setup()
    await web.SockSite(runner, _listen(port)).start()
    return runner
