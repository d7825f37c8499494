"""The client of the API server: lists, watches, and the few kinds of writes. Decisions are made elsewhere.

Every write is a server-side apply, a delete with a uid, a status apply, a scale or an Event. Whatever the API server
answers becomes one of glm_operator.errors. rbac.py lists the verbs used here.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient, Resource

from glm_operator import names
from glm_operator.api.status import GLMDeploymentStatus
from glm_operator.api.trouble import Trouble
from glm_operator.errors import Conflict, Denied, Expired, KubeError, Missing, Rejected, Unavailable, Vanishing
from glm_operator.manifest import Manifest, is_applied, kind_of, name_of
from glm_operator.observe.observed import Observed, observe
from glm_operator.observe.ownership import check_ownership, owned
from glm_operator.render.labels import selector_text

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 15.0
PAGE_SIZE = 500
MAX_KEPT = 2000
"""Deployments of which it is remembered what became of their status; of others it is found out anew."""

NOT_AS_EXPECTED = (ValueError, KeyError, TypeError, AttributeError)
"""What reading an answer raises that is none of the API server's, but of something before it."""

# kind -> (api group, version, plural). Spelled out: no discovery, so no right to it is needed and no cache goes stale.
_RESOURCES = {
    names.KIND: (names.GROUP, names.VERSION, names.PLURAL),
    "StatefulSet": ("apps", "v1", "statefulsets"),
    "ControllerRevision": ("apps", "v1", "controllerrevisions"),
    "Service": ("", "v1", "services"),
    "ServiceAccount": ("", "v1", "serviceaccounts"),
    "Pod": ("", "v1", "pods"),
    "Deployment": ("apps", "v1", "deployments"),
    "ConfigMap": ("", "v1", "configmaps"),
    "Role": ("rbac.authorization.k8s.io", "v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io", "v1", "rolebindings"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "Event": ("", "v1", "events"),
    "Secret": ("", "v1", "secrets"),
}
_SHARED_KINDS = (
    "StatefulSet",
    "Service",
    "ServiceAccount",
    "Deployment",
    "ConfigMap",
    "Role",
    "RoleBinding",
    "PodDisruptionBudget",
    "NetworkPolicy",
)
"""What a deployment owns beside pods and records."""

Removed = Callable[[str, str, str, str], None]  # kind, namespace, name, uid


def _nothing(*_: object) -> None:
    pass


class Kube:
    """A client for the objects of GLMDeployments. `async with connect(…)`."""

    def __init__(
        self, api: client.ApiClient, *, wrote: Callable[[Manifest], None] = _nothing, removed: Removed = _nothing
    ) -> None:
        """wrote, removed: told of what this client changed, before any watch tells of it."""
        self._wrote = wrote
        self._removed = removed
        self._api = api
        self._dynamic = DynamicClient(api)
        self._kept_of: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}  # by uid: a status, and what became of it
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

    async def deployments(self, namespace: str | None, labels: dict[str, str] | None = None) -> list[Manifest]:
        """Return every GLMDeployment of a namespace (None: of the cluster) that has these labels."""
        return await self._list(names.KIND, namespace, labels)

    async def observe(self, body: Manifest, now: datetime) -> Observed:
        """Return what exists of a deployment. now: to tell what has lasted from what was just so."""
        metadata = body["metadata"]
        label = {names.DEPLOYMENT_LABEL: metadata["name"]}
        namespace, record = metadata["namespace"], {**label, names.RECORD_LABEL: "true"}
        pods, *owned = await asyncio.gather(
            self._list("Pod", namespace, label),
            self._list("ControllerRevision", namespace, record),
            *(self._list(kind, namespace, label) for kind in _SHARED_KINDS),
        )
        return observe(metadata["name"], metadata["uid"], itertools.chain(*owned), pods, now)

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
        """Dry-run the creation of a pod. Raises what the API server and its admission say against it."""
        path = self._resources["Pod"].path(namespace=pod["metadata"]["namespace"])
        await self._request("post", path, body=pod, dry_run="All")

    async def note(self, pod: str, namespace: str, uid: str, annotation: str, value: str) -> None:
        """Write an annotation onto a pod that is there still; one that is gone counts as done."""
        change = {"metadata": {"uid": uid, "annotations": {annotation: value}}}
        path = self._resources["Pod"].path(name=pod, namespace=namespace)
        try:
            self._wrote(
                await self._request(
                    "patch",
                    path,
                    body=change,
                    content_type="application/merge-patch+json",
                    field_manager=names.FIELD_MANAGER,
                )
            )
        except (Missing, Conflict):
            return

    async def secret(self, namespace: str, name: str) -> Manifest | None:
        """Return a Secret, or None if there is none. It is read by name only, and never kept."""
        return await self._get("Secret", namespace, name)

    async def put_secret(self, manifest: Manifest, version: str | None) -> None:
        """Make a Secret, or another one of the version that was read. Raises Conflict where somebody was faster."""
        namespace, name = manifest["metadata"]["namespace"], name_of(manifest)
        resource = self._resources["Secret"]
        if version is None:
            path = resource.path(namespace=namespace)
            await self._request("post", path, body=manifest, field_manager=names.FIELD_MANAGER)
            return
        wanted = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": version}}
        await self._request(
            "patch",
            resource.path(name=name, namespace=namespace),
            body=wanted,
            content_type="application/apply-patch+yaml",
            field_manager=names.FIELD_MANAGER,
            force_conflicts=True,
        )

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete an object if it is still the one with this uid; gone or replaced counts as done."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        path = self._resources[kind].path(name=name, namespace=namespace)
        try:
            answer = await self._request("delete", path, body=body)
        except (Missing, Conflict):
            return
        if answer.get("kind") == kind:  # it is on its way out, and says so
            self._wrote(answer)
        else:
            self._removed(kind, namespace, name, uid)

    async def patch_status(self, body: Manifest, status: Mapping[str, Any]) -> bool:
        """Write the status if it differs from the body's in what we write; return whether it did.

        An API server with an older CRD drops fields it does not know: what it answered to the same status counts, too.
        """
        uid, live = body["metadata"]["uid"], body.get("status") or {}
        if _own_fields(live) == status or self._kept_of.get(uid) == (status, live):
            return False
        manifest = {
            "apiVersion": f"{names.GROUP}/{names.VERSION}",
            "kind": names.KIND,
            "metadata": {key: body["metadata"][key] for key in ("name", "namespace", "uid")},
            "status": status,
        }
        # Forced: nobody else writes our status, and a field written by hand would block it for ever.
        try:
            applied = await self._apply(manifest, force=True, subresource="/status")
        except Rejected as error:  # by an older CRD, or for what the object itself says: no other pass will do better
            logger.warning("the API server refuses the status of %s: %s", name_of(body), error)
            self._keep(uid, status, live)
            return False
        self._keep(uid, status, applied.get("status") or {})
        return bool(applied["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"])

    async def scale(self, body: Manifest, groups: int) -> str:
        """Set spec.replicas through the scale subresource; return the version that the deployment has now.

        Raises Conflict if it has changed since the body was read: somebody else may have scaled it.
        """
        metadata = body["metadata"]
        change = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "spec": {"replicas": groups},
        }
        path = self._resources[names.KIND].path(name=metadata["name"], namespace=metadata["namespace"])
        answer = await self._request(
            "patch",
            f"{path}/scale",
            body=change,
            content_type="application/merge-patch+json",
            field_manager=names.FIELD_MANAGER,
        )
        try:
            return str(answer["metadata"]["resourceVersion"])
        except NOT_AS_EXPECTED as error:
            raise Unavailable(f"the answer to a scale is none: {type(error).__name__} {error}") from error

    def _keep(self, uid: str, status: Mapping[str, Any], became: Mapping[str, Any]) -> None:
        self._kept_of.pop(uid, None)
        self._kept_of[uid] = (dict(status), dict(became))
        while len(self._kept_of) > MAX_KEPT:
            del self._kept_of[next(iter(self._kept_of))]

    async def post_events(self, body: Manifest, events: Iterable[Trouble], now: datetime) -> None:
        """Tell people what changed. An Event that cannot be posted is lost: the status says the same."""
        metadata = body["metadata"]
        for told in events:
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
                "reason": told.reason,
                "message": told.message[:1024],
                "type": "Warning" if told.is_bad else "Normal",
                "source": {"component": names.FIELD_MANAGER},
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "count": 1,
            }
            path = self._resources["Event"].path(namespace=metadata["namespace"])
            try:
                await self._request("post", path, body=event)
            except KubeError as error:
                logger.info("event %s of %s is not posted: %s", told.reason, metadata["name"], error)

    async def _get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        try:
            return await self._request("get", self._resources[kind].path(name=name, namespace=namespace))
        except Missing:
            return None

    async def _list(self, kind: str, namespace: str | None, labels: dict[str, str] | None = None) -> list[Manifest]:
        items: list[Manifest] = []
        async for page, _ in self.pages(kind, namespace, labels):
            items += page
        return items

    async def pages(
        self, kind: str, namespace: str | None, labels: dict[str, str] | None = None
    ) -> AsyncIterator[tuple[list[Manifest], str]]:
        """Yield the objects of a kind in pages, each with the version of the whole list. namespace None: of all."""
        resource, token = self._resources[kind], None
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
            try:
                items = [{**what, **item} for item in page.get("items") or []]
                version, token = str(page["metadata"]["resourceVersion"]), page["metadata"].get("continue")
            except NOT_AS_EXPECTED as error:
                raise Unavailable(f"the list of {resource.name} is no list: {type(error).__name__} {error}") from error
            yield items, version
            if not token:
                return

    async def watch(
        self, kind: str, namespace: str | None, labels: dict[str, str], version: str, *, timeout_s: int
    ) -> AsyncGenerator[tuple[str, Manifest], None]:
        """Yield what happens to the objects of a kind after a version, until the server ends it: type and object.

        Types are those of the API: ADDED, MODIFIED, DELETED, BOOKMARK. Raises Expired when the version is too old.
        """
        query = [("allowWatchBookmarks", "true"), ("timeoutSeconds", str(timeout_s))]
        try:
            response = await self._dynamic.request(
                "get",
                self._resources[kind].path(namespace=namespace),
                serialize=False,
                watch="true",
                resource_version=version,
                label_selector=selector_text(labels) or None,
                query_params=query,
                _request_timeout=aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_S),
            )
            async with response:
                async for line in _lines(response.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        said = event["object"]
                        kind_of_error = Expired if said.get("code") == 410 else Unavailable
                        raise kind_of_error(f"watch of {kind}: {said.get('message')}")
                    yield event["type"], event["object"]
        except ApiException as error:
            if error.status == 410:
                raise Expired(f"watch of {kind}: {error.reason}") from None
            raise _translated(error, f"watch of {kind}") from None
        except (TimeoutError, aiohttp.ClientError, OSError, *NOT_AS_EXPECTED) as error:
            raise Unavailable(f"watch of {kind}: {type(error).__name__} {error}".rstrip()) from error

    async def _apply(
        self, manifest: Manifest, *, force: bool, subresource: str = "", dry_run: bool = False
    ) -> Manifest:
        name, namespace = name_of(manifest), manifest["metadata"]["namespace"]
        applied = await self._request(
            "patch",
            self._resources[manifest["kind"]].path(name=name, namespace=namespace) + subresource,
            body=manifest,
            content_type="application/apply-patch+yaml",
            field_manager=names.FIELD_MANAGER,
            force_conflicts=force,
            dry_run="All" if dry_run else None,
        )
        if not dry_run:
            self._wrote(applied)
        return applied

    async def _request(self, method: str, path: str, **kwargs: Any) -> Manifest:
        """Send one request and return the JSON of the answer. Raises a KubeError for every other outcome."""
        try:
            result: Manifest = await self._dynamic.request(
                method, path, serializer=lambda _, data: data, _request_timeout=REQUEST_TIMEOUT_S, **kwargs
            )
        except ApiException as error:
            raise _translated(error, f"{method} {path}") from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: no JSON
            raise Unavailable(f"{method} {path}: {type(error).__name__} {error}".rstrip()) from error
        return result

    async def _text(self, path: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> str:
        """Return the text of an answer that is no JSON."""
        try:
            response = await self._dynamic.request("get", path, serialize=False, _request_timeout=timeout_s)
            async with response:
                return str(await response.text())
        except ApiException as error:
            raise _translated(error, f"get {path}") from None
        except (TimeoutError, aiohttp.ClientError, OSError, *NOT_AS_EXPECTED) as error:
            raise Unavailable(f"get {path}: {type(error).__name__} {error}".rstrip()) from error


_STATUS_FIELDS = {str(field.alias) for field in GLMDeploymentStatus.model_fields.values()}


def _own_fields(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a status that we write: somebody else may keep fields of theirs in it."""
    return {name: value for name, value in status.items() if name in _STATUS_FIELDS}


async def read_configuration(kubeconfig: Path | None) -> client.Configuration:
    """Return how to reach the API server: as the pod's service account, or as the kubeconfig's current user.

    Raises Unavailable where there is neither.
    """
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = 0  # no limit: eleven watches a namespace hold a connection each
    try:
        if kubeconfig is not None:
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig is not None else "service account of this pod"
        raise Unavailable(f"{where}: {error}") from error
    return configuration


def connect(
    configuration: client.Configuration,
    *,
    wrote: Callable[[Manifest], None] = _nothing,
    removed: Removed = _nothing,
) -> Kube:
    """Return a client. It must be made inside the event loop that uses it."""
    return Kube(client.ApiClient(configuration), wrote=wrote, removed=removed)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield whole lines, of any length."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


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
