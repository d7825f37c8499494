"""`glm-operator`: reads the settings, connects, and runs kopf with our triggers, the loop and the probes."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import kopf
import typer

from glm_operator.cluster import kube
from glm_operator.cluster.cache import KINDS, Cache
from glm_operator.cluster.gateway_pages import GatewayPages
from glm_operator.cluster.gateways import Gateways
from glm_operator.cluster.metrics.access import Access
from glm_operator.cluster.metrics.prometheus import Asked, Prometheus
from glm_operator.cluster.metrics.scrape import Scraper
from glm_operator.cluster.metrics.sources import Sources
from glm_operator.cluster.watch import Watch
from glm_operator.cluster.workers import Workers
from glm_operator.errors import KubeError
from glm_operator.handlers import probes
from glm_operator.handlers.autoscaler.board import Board
from glm_operator.handlers.autoscaler.follower import full_name
from glm_operator.handlers.autoscaler.scheduler import Autoscaler
from glm_operator.handlers.loop import Loop
from glm_operator.handlers.queue import Key, Queue
from glm_operator.handlers.triggers import build_registry, build_settings, connection_info
from glm_operator.handlers.wakes import wake
from glm_operator.manifest import Manifest, name_of
from glm_operator.reconcile.adoptions import Adoptions, is_adopting
from glm_operator.reconcile.certificates.keeper import Certificates
from glm_operator.reconcile.reconciler import Reconciler
from glm_operator.render.policies import Openings
from glm_operator.rollout.front import House
from glm_operator.settings import OperatorSettings, SettingsError, read_settings

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


async def run(settings: OperatorSettings, stopping: asyncio.Event) -> None:
    """Run the operator until it is told to stop. Raises what ended its loop, should that end by itself."""
    failures: list[BaseException] = []

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            failures.append(task.exception() or RuntimeError("the loop returned"))
        stopping.set()

    async def credentials() -> kopf.ConnectionInfo:
        return connection_info(await kube.read_configuration(settings.kubeconfig))

    cache, workers, gateways, queue = Cache(), Workers(), GatewayPages(), Queue()
    board = Board(lambda name: queue.add(Key(*name)), has_prometheus=settings.prometheus_url is not None)
    is_listed = asyncio.Event()  # every deployment is known that could be listed
    configuration = await kube.read_configuration(settings.kubeconfig)
    async with kube.connect(configuration, wrote=lambda item: _put(cache, item), removed=cache.remove) as client:
        certificates = Certificates(client, now=_now)
        reconciler = Reconciler(
            client,
            cache,
            workers,
            Adoptions(
                settings.adoptions_at_once,
                in_progress=lambda: _adopting(cache) if is_listed.is_set() else None,
                wake=lambda name: queue.add(Key(*name)),
            ),
            settings.worker_image,
            now=_now,
            measurements=board,
            gateways=gateways,
            house=_house(settings),
            certificates=certificates,
        )
        demand = Gateways()
        sources = _sources(settings, lambda *asked: loop.telemetry.asked(*asked))
        autoscaler = Autoscaler(
            board,
            kube=client,
            cache=cache,
            sources=sources,
            workers=workers,
            now=_now,
            period_s=settings.demand_period_s,
            gpu_budgets=settings.gpu_budgets,
            gateways=demand,
        )
        watches = [
            Watch(client, cache, kind, namespace, wake=partial(wake, queue, cache, kind))
            for kind in KINDS
            for namespace in settings.namespaces or (None,)
        ]
        poll = partial(_poll, cache, workers, gateways)
        list_known = partial(_list, client, cache)
        loop = Loop(
            settings,
            reconciler.reconcile,
            list_known,
            poll,
            watches,
            queue=queue,
            beside=[autoscaler.run],
            measured=lambda: board.latest,
            statuses=partial(_statuses, cache),
            certificates=lambda: certificates.ends,
        )
        runner = await probes.serve(loop, settings.management_port)
        try:
            await loop.wait_until_served()
            is_listed.set()
            await kopf.operator(
                registry=build_registry(loop, credentials, ended),
                settings=build_settings(),
                namespaces=settings.namespaces,
                clusterwide=not settings.namespaces,
                stop_flag=stopping,
            )
        finally:
            await runner.cleanup()
            await workers.close()
            await gateways.close()
            await demand.close()
            await sources.close()
    if failures:
        raise failures[0]


def _house(settings: OperatorSettings) -> House:
    openings = Openings(prometheus=settings.scraper_pods, management=settings.management_from)
    return House(settings.gateway_image, openings if settings.network_policies else None, settings.certificates)


def _sources(settings: OperatorSettings, asked: Asked) -> Sources:
    """Return where numbers come from: Prometheus, if there is one, and the workers themselves."""
    prometheus = None
    if settings.prometheus_url is not None:
        access = Access(
            url=settings.prometheus_url,
            ca_file=settings.prometheus_ca_file,
            certificate_file=settings.prometheus_certificate_file,
            key_file=settings.prometheus_key_file,
            bearer_token_file=settings.prometheus_bearer_token_file,
            username_file=settings.prometheus_username_file,
            password_file=settings.prometheus_password_file,
            timeout_s=settings.prometheus_timeout_s,
            has_recording_rules=settings.prometheus_recording_rules,
            max_window_s=settings.prometheus_max_window_s,
        )
        prometheus = Prometheus(access, asked=asked)
    return Sources(Scraper(), prometheus, latency_period_s=settings.latency_period_s)


def _statuses(cache: Cache) -> dict[tuple[str, str], Manifest]:
    """Return the status of every deployment, as the watches know it."""
    return {full_name(body): body.get("status") or {} for body in cache.bodies()}


def _now() -> datetime:
    return datetime.now(UTC)


def _put(cache: Cache, item: Manifest) -> None:
    cache.put(item)


async def _list(client: kube.Kube, cache: Cache, namespace: str | None) -> list[Manifest]:
    """Return the deployments of a namespace, and let the cache know them: kopf lists them only later."""
    bodies = await client.deployments(namespace)
    for body in bodies:
        cache.put(body)
    return bodies


def _adopting(cache: Cache) -> list[tuple[str, str]] | None:
    """Return the deployments that move to an adopted rendering; None until every watch has listed what they need."""
    if not all(cache.is_complete(namespace) for namespace, _ in cache.deployments()):
        return None
    seen = cache.all_seen(_now())
    return [(each.body["metadata"]["namespace"], name_of(each.body)) for each in seen if is_adopting(each.observed)]


async def _poll(cache: Cache, workers: Workers, gateways: GatewayPages) -> set[Key]:
    """Ask every group and gateway how it is; return the deployments of those that say something new."""
    seen = [
        (Key(each.body["metadata"]["namespace"], name_of(each.body)), each.observed) for each in cache.all_seen(_now())
    ]
    groups = [(owner, group) for owner, observed in seen for group in observed.groups.values()]
    pods = [(owner, pod) for owner, observed in seen for pod in observed.gateway]
    of_groups, of_gateways = await asyncio.gather(workers.poll(groups), gateways.poll(pods))
    return of_groups | of_gateways


def start(
    worker_image: Annotated[str | None, typer.Option(help="Worker image of deployments that name none.")] = None,
    namespaces: Annotated[str | None, typer.Option(help="Namespaces to serve, by commas. Default: all.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Cluster to talk to from outside.")] = None,
    management_port: Annotated[int | None, typer.Option(help="Port of /livez and /metrics.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Reconcile GLMDeployments. Every option is also the variable GLM_OPERATOR_<OPTION>."""
    try:
        settings = read_settings(
            worker_image=worker_image,
            namespaces=namespaces,
            kubeconfig=kubeconfig,
            management_port=management_port,
            log_level=log_level,
        )
    except SettingsError as error:
        sys.stderr.write(f"glm-operator: {error}\n")
        raise typer.Exit(2) from None
    logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
    logging.getLogger("kopf.objects").setLevel("WARNING")  # a line an event; what we do is logged where we do it
    logging.getLogger("httpx").setLevel("WARNING")
    try:
        asyncio.run(run(settings, asyncio.Event()))
    except KubeError as error:
        sys.stderr.write(f"glm-operator: {error}\n")
        raise typer.Exit(1) from None


def main() -> None:
    """Console entry point."""
    # No handler of SIGTERM here: its default action ends us at any moment before kopf has its own. That holds for a
    # process that is not PID 1, which the image's init sees to.
    # What we do not expect belongs in the log as Python prints it: no boxes, and no values of variables.
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(start)
    app()


if __name__ == "__main__":
    main()
