"""The command: reads, again and again, and shows. Every read has a deadline.

A live view outlives the API server: while nothing new can be read, what was seen last stays, with its age and cause.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Protocol

import typer
from rich.console import RenderableType
from rich.live import Live

from glm_operator import names
from glm_operator.cli.console import CommandError, out, plain_errors
from glm_operator.cli.status.drawing import draw
from glm_operator.cli.status.samples import Samples, Scrape, SeriesKey, read_text
from glm_operator.cli.status.view import View, view
from glm_operator.errors import Denied, KubeError, Missing
from glm_operator.manifest import Manifest

READ_S = 3.0
"""A pod that takes longer to answer is shown without numbers."""

LATE_S = 5.0
"""What takes longer to read is told while it is waited for."""

FINAL_LOOKS = 3
"""A view ends when so many looks in a row find the deployment gone or forbidden: an API server that starts says so for
a moment, too."""

AT_ONCE = 16

KEPT = "written at most once a minute, and a number anew only when it differs by more than 10 %"
OLD = f"These numbers are those of the status: {KEPT}."


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
        await follow(look, interval_s, lambda picture: live.update(picture, refresh=True))


async def follow(look: "Look", interval_s: float, show: Callable[[RenderableType], None]) -> None:
    """Show a deployment anew for ever. Raises the first look's KubeError, or that it is gone or forbidden."""
    show(draw(await look.take()))
    num_final = 0
    while True:
        await asyncio.sleep(interval_s)
        try:
            seen = await _taken(look, show)
            num_final = 0
        except KubeError as error:
            num_final = num_final + 1 if isinstance(error, Missing | Denied) else 0
            if num_final == FINAL_LOOKS:
                raise
            seen = look.kept(str(error))
        show(draw(seen))


async def _taken(look: "Look", show: Callable[[RenderableType], None]) -> View:
    """Take a look; show the age of the last one while that lasts."""
    taking = asyncio.create_task(look.take())
    try:
        while not (await asyncio.wait([taking], timeout=LATE_S))[0]:
            show(draw(look.kept("the API server has not answered yet")))
        return taking.result()
    finally:
        taking.cancel()


class Look:
    """Looks at one deployment, and keeps what it saw last."""

    def __init__(self, kube: Reads, namespace: str, name: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._samples = Samples()
        self._denied = ""  # why pods may not be asked
        self._has_heard = False  # of any pod, ever
        self._body: Manifest = {}
        self._taken_s = 0.0  # by the monotonic clock

    async def take(self) -> View:
        """Read the deployment and its groups; return what to show. Raises KubeError where that is not possible."""
        body = await self._kube.wanted(self._namespace, self._name)
        groups = [group["name"] for group in (body.get("status") or {}).get("groups") or []]
        note = await self._scrape(groups)
        self._body, self._taken_s = body, time.monotonic()
        return view(body, self._samples, datetime.now(UTC), note)

    def kept(self, cause: str) -> View:
        """Return what the last look brought, with its age. cause: why there is nothing newer."""
        note = f"These numbers are {time.monotonic() - self._taken_s:.0f} s old: {cause}"
        return view(self._body, self._samples, datetime.now(UTC), note)

    async def _scrape(self, groups: list[str]) -> str:
        """Ask the groups; return how old what is shown is."""
        if self._denied:
            return self._denied
        slots = asyncio.Semaphore(AT_ONCE)
        try:
            found = await asyncio.gather(*(self._ask(group, slots) for group in groups))
        except Denied as error:
            told = f"{OLD} Pods may not be asked themselves: {error}"
            self._denied = "" if self._has_heard else told  # who was answered before is asked again
            self._samples.add(Scrape(datetime.now(UTC).timestamp(), {}))
            return told
        answers = {group: samples for group, samples in zip(groups, found, strict=True) if samples is not None}
        self._has_heard = self._has_heard or bool(answers)
        self._samples.add(Scrape(datetime.now(UTC).timestamp(), answers))
        silent = [group for group in groups if group not in answers]
        told = f" No answer from {', '.join(silent[:20])}." if silent else ""
        span_s = self._samples.span_s
        if not span_s:
            return f"Groups as they are now; latencies are those of the status: {KEPT}.{told}"
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
