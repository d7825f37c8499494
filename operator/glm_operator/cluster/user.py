"""What a person's commands ask of the API server, under the person's own account: read, and merge a change."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config

from glm_operator import names
from glm_operator.cluster.kube import Kube, read_configuration
from glm_operator.errors import Conflict, KubeError, Missing
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import Observed, observe

FIELD_MANAGER = "kubectl-glm"
_TRIES = 20


class UserKube(Kube):
    """The operator's client, and what only a person may do: change a GLMDeployment itself, and Secrets of keys."""

    async def wanted(self, namespace: str, name: str) -> Manifest:
        """Return a GLMDeployment. KubeError says that there is none."""
        body = await self.deployment(namespace, name)
        if body is None:
            raise Missing(f"there is no GLMDeployment {name} in namespace {namespace}")
        return body

    async def kept(self, body: Manifest) -> Observed:
        """Return the records and StatefulSets of a deployment."""
        metadata = body["metadata"]
        label = {names.DEPLOYMENT_LABEL: metadata["name"]}
        records = await self._list("ControllerRevision", metadata["namespace"], {**label, names.RECORD_LABEL: "true"})
        sets = await self._list("StatefulSet", metadata["namespace"], label)
        return observe(metadata["name"], metadata["uid"], [*records, *sets], [], datetime.now(UTC))

    async def pod_metrics(self, namespace: str, pod: str, *, timeout_s: float) -> str:
        """Return the metrics of a pod's worker, through the API server's proxy. Denied where the right is missing."""
        path = f"{self._resources['Pod'].path(name=f'{pod}:{names.MANAGEMENT_PORT}', namespace=namespace)}/proxy"
        return await self._text(f"{path}{names.METRICS_PATH}", timeout_s=timeout_s)

    async def change(
        self, body: Manifest, patch: Mapping[str, Any], *, rests_on: Callable[[Manifest], object] = lambda _: None
    ) -> Manifest:
        """Merge a change into a GLMDeployment, whatever the operator has written into it since it was read.

        rests_on: what of the deployment the change was made of. Raises Conflict if that is another by now, or the name
        is another deployment's.
        """
        read, now = body["metadata"], body
        for _ in range(_TRIES):
            try:
                return await self._change(now["metadata"], patch)
            except Conflict:  # during a rollout the status alone changes many times a second
                now = await self.wanted(read["namespace"], read["name"])
            if now["metadata"]["uid"] != read["uid"] or rests_on(now) != rests_on(body):
                raise Conflict(f"{read['name']} was changed by somebody else meanwhile; nothing was done; try again")
        raise Conflict(f"{read['name']} was changed by others {_TRIES} times in a row; nothing was done; try again")

    async def _change(self, metadata: Mapping[str, Any], patch: Mapping[str, Any]) -> Manifest:
        """Merge a change into what is of this version still. Raises Conflict if it is not."""
        change = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": metadata["resourceVersion"]}}
        return await self._request(
            "patch",
            self._resources[names.KIND].path(name=metadata["name"], namespace=metadata["namespace"]),
            body=change,
            content_type="application/merge-patch+json",
            field_manager=FIELD_MANAGER,
        )

    async def secret(self, namespace: str, name: str) -> Manifest | None:
        """Return a Secret as it is now, or None if there is none."""
        try:
            return await self._request("get", _secrets(namespace, name))
        except Missing:
            return None

    async def create_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> Manifest:
        """Create a Secret of these items, each in base64. Raises Conflict if there is one of this name by now."""
        labels = {names.MANAGED_BY_LABEL: FIELD_MANAGER}
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": dict(data)}
        return await self._request("post", _secrets(namespace), body=body, field_manager=FIELD_MANAGER)

    async def change_secret(self, body: Manifest, data: Mapping[str, str | None]) -> Manifest:
        """Set items of a Secret, each in base64, and remove those that are None.

        Raises Conflict if it has changed since it was read, Missing if it is gone.
        """
        metadata = body["metadata"]
        return await self._request(
            "patch",
            _secrets(metadata["namespace"], metadata["name"]),
            body={"metadata": {"resourceVersion": metadata["resourceVersion"]}, "data": dict(data)},
            content_type="application/merge-patch+json",
            field_manager=FIELD_MANAGER,
        )

    async def tell_gateways(self, namespace: str, secret: str, now: datetime) -> list[str]:
        """Have the kubelet bring a changed Secret to the gateways that have it, now; return their pods' names."""
        labels = {names.COMPONENT_LABEL: names.GATEWAY_ROLE, names.MANAGED_BY_LABEL: names.FIELD_MANAGER}
        told = []
        for pod in await self._list("Pod", namespace, labels):
            volumes = pod.get("spec", {}).get("volumes") or []
            if any((volume.get("secret") or {}).get("secretName") == secret for volume in volumes):
                uid, stamp = pod["metadata"]["uid"], now.isoformat()
                await self.note(name_of(pod), namespace, uid, names.KEYS_ANNOTATION, stamp)
                told.append(name_of(pod))
        return told


def _secrets(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/secrets/{name}".rstrip("/")


@asynccontextmanager
async def as_user() -> AsyncIterator[tuple[UserKube, str]]:
    """Yield a client of the kubeconfig's current context, and the namespace of that context."""
    path = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    configuration = await read_configuration(path)
    try:
        _, active = config.list_kube_config_contexts(config_file=str(path))
    except config.ConfigException as error:
        raise KubeError(f"kubeconfig {path}: {error}") from error
    async with client.ApiClient(configuration) as api:
        yield UserKube(api), str(active["context"].get("namespace") or "default")
