"""The only module that talks to the API server (kopf's own watches aside). Thin and dull: decisions are made elsewhere.

Every write is a server-side apply, a delete with a uid, a status apply or an Event. Whatever the API server answers
becomes one of glm_operator.errors. rbac.py lists the verbs used here.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient, Resource

from glm_operator import names
from glm_operator.errors import Conflict, Denied, KubeError, Missing, Rejected, Unavailable, Vanishing
from glm_operator.manifest import Manifest, is_applied, kind_of, name_of
from glm_operator.observe.observed import Observed, observe
from glm_operator.observe.ownership import check_ownership, owned
from glm_operator.render.labels import selector_text
from glm_operator.status.conditions import Transition

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 15.0
PAGE_SIZE = 500

# kind -> (api group, version, plural). Spelled out: no discovery, so no right to it is needed and no cache goes stale.
_RESOURCES = {
    names.KIND: (names.GROUP, names.VERSION, names.PLURAL),
    "StatefulSet": ("apps", "v1", "statefulsets"),
    "ControllerRevision": ("apps", "v1", "controllerrevisions"),
    "Service": ("", "v1", "services"),
    "ServiceAccount": ("", "v1", "serviceaccounts"),
    "Pod": ("", "v1", "pods"),
    "Event": ("", "v1", "events"),
}


class Kube:
    """A client for the objects of GLMDeployments. `async with connect(…)`."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._dynamic = DynamicClient(api)
        self._resources = {
            kind: Resource(
                prefix="apis" if group else "api",
                group=group or None,
                api_version=version,
                kind=kind,
                name=plural,
                namespaced=True,
                client=self._dynamic,
            )
            for kind, (group, version, plural) in _RESOURCES.items()
        }

    async def __aenter__(self) -> "Kube":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def deployment(self, namespace: str, name: str) -> Manifest | None:
        """Return a GLMDeployment as it is now, or None if it is gone."""
        return await self._get(names.KIND, namespace, name)

    async def deployments(self, namespace: str | None) -> list[Manifest]:
        """Return every GLMDeployment of a namespace; None: of the cluster."""
        return await self._list(names.KIND, namespace)

    async def observe(self, body: Manifest, now: datetime) -> Observed:
        """Return what exists of a deployment. now: to tell what has lasted from what was just so."""
        metadata = body["metadata"]
        label = {names.DEPLOYMENT_LABEL: metadata["name"]}
        namespace, record = metadata["namespace"], {**label, names.RECORD_LABEL: "true"}
        sets, services, accounts, records, pods = await asyncio.gather(
            self._list("StatefulSet", namespace, label),
            self._list("Service", namespace, label),
            self._list("ServiceAccount", namespace, label),
            self._list("ControllerRevision", namespace, record),
            self._list("Pod", namespace, label),
        )
        return observe(metadata["name"], metadata["uid"], [*sets, *services, *accounts, *records], pods, now)

    async def apply(self, manifest: Manifest, owner: Manifest, observed: Observed, *, dry_run: bool = False) -> bool:
        """Make the object as the manifest says, unless it is already; return whether anything was written.

        dry_run: have it checked by the API server and its webhooks as if, and write nothing.
        Raises ForeignObject or LeftOver instead of taking over what is not the owner's.
        """
        wanted = owned(manifest, owner)
        live = observed.live.get((*kind_of(manifest), name_of(manifest)))
        if is_applied(wanted, live):
            return False
        if live is None:
            # Not seen by its labels: it may be missing, may have lost them, or may be somebody else's.
            live = await self._get(manifest["kind"], manifest["metadata"]["namespace"], name_of(manifest))
        if live is not None:
            check_ownership(live, owner)
            # With its uid the apply fails if another object took the name since we looked.
            wanted["metadata"]["uid"] = live["metadata"]["uid"]
        # Of what is ours we own every field we send: a hand that changed one of them is overruled.
        applied = await self._apply(wanted, force=live is not None, dry_run=dry_run)
        return live is None or applied["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]

    async def try_pod(self, pod: Manifest) -> None:
        """Have a pod judged by the API server and its admission as if it were to be made, and make none."""
        path = self._resources["Pod"].path(namespace=pod["metadata"]["namespace"])
        await self._request("post", path, body=pod, dry_run="All")

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete an object if it is still the one with this uid; gone or replaced counts as done."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        path = self._resources[kind].path(name=name, namespace=namespace)
        with contextlib.suppress(Missing, Conflict):
            await self._request("delete", path, body=body)

    async def patch_status(self, body: Manifest, status: Mapping[str, Any]) -> bool:
        """Write the status if it differs from the body's; return whether it did."""
        if body.get("status") == status:
            return False
        manifest = {
            "apiVersion": f"{names.GROUP}/{names.VERSION}",
            "kind": names.KIND,
            "metadata": {key: body["metadata"][key] for key in ("name", "namespace", "uid")},
            "status": status,
        }
        # Forced: nobody else writes our status, and a field written by hand would block it for ever.
        applied = await self._apply(manifest, force=True, subresource="/status")
        return bool(applied["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"])

    async def post_events(self, body: Manifest, transitions: Iterable[Transition], now: datetime) -> None:
        """Tell people what changed. An Event that cannot be posted is lost: the status says the same."""
        metadata = body["metadata"]
        for transition in transitions:
            stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{metadata['name']}-", "namespace": metadata["namespace"]},
                "involvedObject": {
                    "apiVersion": f"{names.GROUP}/{names.VERSION}",
                    "kind": names.KIND,
                    **{key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
                },
                "reason": transition.reason,
                "message": transition.message[:1024],
                "type": "Warning" if transition.is_warning else "Normal",
                "source": {"component": names.FIELD_MANAGER},
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "count": 1,
            }
            path = self._resources["Event"].path(namespace=metadata["namespace"])
            try:
                await self._request("post", path, body=event)
            except KubeError as error:
                logger.info("event %s of %s is not posted: %s", transition.reason, metadata["name"], error)

    async def _get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        try:
            return await self._request("get", self._resources[kind].path(name=name, namespace=namespace))
        except Missing:
            return None

    async def _list(self, kind: str, namespace: str | None, labels: dict[str, str] | None = None) -> list[Manifest]:
        resource, items, token = self._resources[kind], [], None
        selector = selector_text(labels) if labels else None
        while True:
            try:
                page = await self._request(
                    "get",
                    resource.path(namespace=namespace),
                    label_selector=selector,
                    limit=PAGE_SIZE,
                    _continue=token,
                )
            except Missing as error:
                raise Unavailable(
                    f"the API server does not know {resource.name} of {resource.group_version}"
                ) from error
            # Items of a list do not say what they are.
            what = {"apiVersion": resource.group_version, "kind": kind}
            items += [{**what, **item} for item in page.get("items") or []]
            token = page["metadata"].get("continue")
            if not token:
                return items

    async def _apply(
        self, manifest: Manifest, *, force: bool, subresource: str = "", dry_run: bool = False
    ) -> Manifest:
        name, namespace = name_of(manifest), manifest["metadata"]["namespace"]
        return await self._request(
            "patch",
            self._resources[manifest["kind"]].path(name=name, namespace=namespace) + subresource,
            body=manifest,
            content_type="application/apply-patch+yaml",
            field_manager=names.FIELD_MANAGER,
            force_conflicts=force,
            dry_run="All" if dry_run else None,
        )

    async def _request(self, method: str, path: str, **kwargs: Any) -> Manifest:
        """Send one request and return the JSON of the answer. Raises a KubeError for every other outcome."""
        try:
            result: Manifest = await self._dynamic.request(
                method, path, serializer=lambda _, data: data, _request_timeout=REQUEST_TIMEOUT_S, **kwargs
            )
        except ApiException as error:
            raise _translated(error, f"{method} {path}") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{method} {path}: {type(error).__name__} {error}".rstrip()) from error
        return result


async def read_configuration(kubeconfig: Path | None) -> client.Configuration:
    """Return how to reach the API server: as the pod's service account, or as the kubeconfig's current user.

    Raises Unavailable where there is neither.
    """
    configuration = client.Configuration()
    try:
        if kubeconfig is not None:
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig is not None else "service account of this pod"
        raise Unavailable(f"{where}: {error}") from error
    return configuration


def connect(configuration: client.Configuration) -> Kube:
    """Return a client. It must be made inside the event loop that uses it."""
    return Kube(client.ApiClient(configuration))


def _translated(error: ApiException, request: str) -> KubeError:
    """Return an answer of the API server as one of our errors, in its own words."""
    answer = _answer(error)
    message = f"{request}: {answer.get('message') or error.reason}"
    causes = {cause.get("reason") for cause in (answer.get("details") or {}).get("causes") or []}
    if error.status == 403 and "NamespaceTerminating" in causes:
        return Vanishing(f"{request}: the namespace is being deleted")
    if error.status in (400, 422):
        return Rejected(str(answer.get("message") or error.reason))
    if error.status == 403 and "message" in answer:
        return Denied(str(answer["message"]))  # says itself what was to be done, and is told to people as it is
    kinds: dict[int, type[KubeError]] = {403: Denied, 404: Missing, 409: Conflict}
    kind = kinds.get(error.status)
    return kind(message) if kind is not None else Unavailable(f"{message} (status {error.status})")


def _answer(error: ApiException) -> dict[str, Any]:
    try:
        answer = json.loads(error.body or "{}")
    except (TypeError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}
