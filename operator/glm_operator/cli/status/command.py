"""The command: reads, again and again, and shows. Every read has a deadline."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Protocol

import typer
from rich.live import Live

from glm_operator import names
from glm_operator.cli.console import CommandError, out, plain_errors
from glm_operator.cli.status.drawing import draw
from glm_operator.cli.status.samples import Samples, Scrape, SeriesKey, read_text
from glm_operator.cli.status.view import View, view
from glm_operator.errors import Denied, KubeError
from glm_operator.manifest import Manifest

READ_S = 3.0
"""A pod that takes longer to answer is shown without numbers."""

AT_ONCE = 16

OLD = "These numbers are those of the status: up to a minute old."


class Reads(Protocol):
    """What is asked of the API server (glm_operator.cluster.user.UserKube)."""

    async def wanted(self, namespace: str, name: str) -> Manifest: ...
    async def pod_metrics(self, namespace: str, pod: str, *, timeout_s: float) -> str: ...


def status_command(
    name: Annotated[str, typer.Argument(help="Name of the GLMDeployment.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Default: that of the kubeconfig's context.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once; else it is drawn anew until Ctrl-C.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json; json shows it once.")] = "table",
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.5, max=60)] = 2.0,
) -> None:
    """Show a deployment live: groups, latency against promises, the last decisions and what limits them.

    What groups measure is read from their leading pods, through the API server's proxy (get on pods/proxy). Without
    that right the numbers of the status are shown, which may be a minute old.
    """
    from glm_operator.cluster.user import as_user  # the client costs seconds to import and is no part of local mode

    async def run() -> None:
        async with as_user() as (kube, default):
            look = Look(kube, namespace or default, name)
            if output == "json":
                out.print_json(json.dumps((await look.take()).as_json()))
            elif once or not out.is_terminal:
                out.print(draw(await look.take()))
            else:
                await _follow(look, interval)

    with plain_errors():
        if output not in ("table", "json"):
            raise CommandError(f"--output {output} is not known; use table or json")
        asyncio.run(run())


async def _follow(look: "Look", interval_s: float) -> None:
    with Live(console=out, auto_refresh=False, screen=False) as live:
        while True:
            live.update(draw(await look.take()), refresh=True)
            await asyncio.sleep(interval_s)


class Look:
    """Looks at one deployment."""

    def __init__(self, kube: Reads, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._samples = Samples()
        self._denied = ""  # why pods may not be asked

    async def take(self) -> View:
        """Read the deployment and its groups; return what to show."""
        body = await self._kube.wanted(self._namespace, self._name)
        groups = [group["name"] for group in (body.get("status") or {}).get("groups") or []]
        note = await self._scrape(groups)
        return view(body, self._samples, datetime.now(UTC), note)

    async def _scrape(self, groups: list[str]) -> str:
        """Ask the groups; return how old what is shown is."""
        if self._denied:
            return self._denied
        slots = asyncio.Semaphore(AT_ONCE)
        try:
            found = await asyncio.gather(*(self._ask(group, slots) for group in groups))
        except Denied as error:
            self._denied = f"{OLD} Pods may not be asked themselves: {error}"
            return self._denied
        answers = {group: samples for group, samples in zip(groups, found, strict=True) if samples is not None}
        self._samples.add(Scrape(datetime.now(UTC).timestamp(), answers))
        silent = [group for group in groups if group not in answers]
        told = f" No answer from {', '.join(silent[:20])}." if silent else ""
        span_s = self._samples.span_s
        if not span_s:
            return f"Groups as they are now; latencies are those of the status: up to a minute old.{told}"
        return f"Groups as they are now; latencies of the last {span_s:.0f} s.{told}"

    async def _ask(self, group: str, slots: asyncio.Semaphore) -> Mapping[SeriesKey, float] | None:
        try:
            async with slots:
                text = await self._kube.pod_metrics(self._namespace, names.pod_name(group, 0), timeout_s=READ_S)
        except Denied:
            raise
        except KubeError:
            return None  # it starts, or is gone
        return read_text(text)
