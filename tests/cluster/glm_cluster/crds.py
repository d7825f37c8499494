"""CustomResourceDefinitions of guests: applied from a folder, and removed with every object of their kinds."""

import json
from pathlib import Path

from glm_cluster.cluster import Cluster


def add_crds(cluster: Cluster, *files: Path) -> None:
    """Apply the CRDs, server-side: some are too large for the annotation of a client-side apply."""
    each = [argument for file in files for argument in ("-f", file)]
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--validate=false", *each)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *each)


def remove_crds(cluster: Cluster, *groups: str) -> None:
    """Remove the CRDs of API groups. Finalizers go first: who would act on them may not run any more."""
    found = [item for item in cluster.get("crds")["items"] if item["spec"]["group"] in groups]
    names = [item["metadata"]["name"] for item in found]
    for name in names:
        for item in cluster.get(name, "--all-namespaces")["items"]:
            if item["metadata"].get("finalizers"):
                release(cluster, name, item["metadata"])
    if names:
        cluster.kubectl("delete", "crds", *names, "--ignore-not-found", "--timeout=60s")


def release(cluster: Cluster, kind: str, metadata: dict[str, str]) -> None:
    namespace = ("-n", metadata["namespace"]) if "namespace" in metadata else ()
    patch = json.dumps({"metadata": {"finalizers": None}})
    cluster.kubectl("patch", kind, metadata["name"], *namespace, "--type=merge", "-p", patch)
