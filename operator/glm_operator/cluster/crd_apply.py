"""Bring one CustomResourceDefinition of a cluster up to date, with no more rights than get and patch on it."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from kubernetes.aio import client

from glm_operator.cluster.kube import read_configuration
from glm_operator.errors import KubeError, Unavailable
from glm_operator.names import FIELD_MANAGER

ESTABLISHED_LIMIT_S = 60.0
POLL_S = 0.5
APPLY = "application/apply-patch+yaml"


async def apply_crd(wanted: dict[str, Any]) -> str:
    """Apply it on the server's side, wait until it is served, return what was done. KubeError says what is wrong."""
    async with client.ApiClient(await _configuration()) as http:
        api = client.ApiextensionsV1Api(http)
        name = wanted["metadata"]["name"]
        try:
            before = await api.read_custom_resource_definition(name)
            # Forced: whoever wrote the fields before (Helm, kubectl), the definition of our kind is ours.
            after = await api.patch_custom_resource_definition(
                name, wanted, field_manager=FIELD_MANAGER, force=True, _content_type=APPLY
            )
        except client.ApiException as error:
            raise KubeError(_sentence(name, error)) from error
        await _wait_until_established(api, name)
    assert before.metadata is not None
    assert after.metadata is not None
    is_same = before.metadata.generation == after.metadata.generation
    return f"{name} is {'as it should be' if is_same else 'updated'} and served"


async def _configuration() -> client.Configuration:
    """The pod's own account inside a cluster, else the current context of the kubeconfig."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        kubeconfig = None
    else:
        kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    try:
        return await read_configuration(kubeconfig)
    except Unavailable as error:
        raise KubeError(f"no cluster to talk to: {error}") from error


async def _wait_until_established(api: client.ApiextensionsV1Api, name: str) -> None:
    deadline = time.monotonic() + ESTABLISHED_LIMIT_S
    while True:
        status = (await api.read_custom_resource_definition(name)).status
        conditions = {c.type: c for c in (status and status.conditions) or []}
        if "Established" in conditions and conditions["Established"].status == "True":
            return
        if time.monotonic() > deadline:
            reasons = "; ".join(f"{c.type}={c.status}: {c.message}" for c in conditions.values())
            raise KubeError(f"{name} is not served after {ESTABLISHED_LIMIT_S:.0f} s. {reasons}")
        await asyncio.sleep(POLL_S)


def _sentence(name: str, error: client.ApiException) -> str:
    if error.status == 404:
        return (
            f"{name} is not in the cluster, and this account may not create it; "
            "create it first: helm show crds CHART | kubectl apply --server-side -f -"
        )
    return f"the API server refused {name}: {error.status} {error.reason} {error.body}"
