"""kopf's part: the life of the process, and triggers: that a GLMDeployment was edited or deleted.

The cache has watches of its own (cluster/watch.py): kopf tells of no bookmark and of nothing that vanished unseen.

Only on.event, on.startup, on.cleanup and on.login: every other kind of handler makes kopf add a finalizer, and then
nothing could be deleted while the operator is down.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import kopf
from kubernetes.aio import client

from glm_operator import names
from glm_operator.handlers.loop import Loop
from glm_operator.handlers.queue import Key, Urgency


def build_registry(
    loop: Loop,
    credentials: Callable[[], Awaitable[kopf.ConnectionInfo]],
    ended: Callable[[asyncio.Task[None]], None],
) -> kopf.OperatorRegistry:
    """Return kopf's handlers: they fill the loop's queue, and run it between start-up and clean-up.

    credentials: asked at the start and whenever the API server no longer takes the ones before.
    ended: called with the loop's task when it ends; one that was not cancelled must not leave the process up, idle.
    """
    registry = kopf.OperatorRegistry()
    background: list[asyncio.Task[None]] = []

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def wake_itself(
        event: kopf.RawEvent, name: str | None, namespace: str | None, meta: kopf.Meta, memo: kopf.Memo, **_: Any
    ) -> None:
        """Note that a deployment was edited, or that it goes. Our own writes of its status wake nobody."""
        asked = [meta.annotations.get(name) for name in (names.ADOPT_ANNOTATION, names.NEWEST_THEN_ANNOTATION)]
        version = (event["type"] == "DELETED", meta.get("generation"), meta.get("deletionTimestamp"), *asked)
        if memo.get("version") != version:
            memo["version"] = version
            loop.queue.add(Key(namespace or "", name or ""), _urgency(event))

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await credentials()

    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        task = asyncio.create_task(loop.run(), name="glm-operator")
        task.add_done_callback(ended)
        background.append(task)

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    return registry


def _urgency(event: kopf.RawEvent) -> Urgency:
    """Return how urgent an event of a deployment is: at the start all of them come, and most were seen before."""
    body = event["object"]
    was_edited = body["metadata"].get("generation") != (body.get("status") or {}).get("observedGeneration")
    return Urgency.EDIT if event["type"] is not None or was_edited else Urgency.RESYNC


class WatchBackoffs:
    """Seconds between the tries of a watch, without an end; each watch counts for itself.

    kopf ends the whole operator when one watch is given up: a namespace that was deleted with the permissions in it
    would take all the others down, again after each restart.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (1.0, 2.0, 5.0, 10.0)
        while True:
            yield 30.0


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: one operator, no discovery of what may not be seen, watches that cannot die unnoticed."""
    ours = kopf.OperatorSettings()
    ours.peering.standalone = True  # one replica, strategy Recreate; a peering named "default" would freeze us
    ours.scanning.disabled = True  # no right to list CRDs or namespaces is needed
    ours.posting.enabled = False  # Events are posted by kube.py, at transitions only
    ours.watching.server_timeout = 600
    ours.watching.client_timeout = 660
    ours.watching.connect_timeout = 10
    ours.watching.inactivity_timeout = 70
    ours.networking.request_timeout = 60
    ours.networking.connect_timeout = 10
    ours.networking.error_backoffs = WatchBackoffs()
    ours.execution.max_workers = 1  # every handler is async
    ours.watching.chunk_size = 500
    return ours


def connection_info(configuration: client.Configuration) -> kopf.ConnectionInfo:
    """Return the credentials of our own client in kopf's form, so that both are the same user."""
    scheme, _, token = configuration.api_key.get("BearerToken", "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme.capitalize() or None,
        token=token or None,
    )
