"""The cluster's own image registry: its configuration, and what a test wants to know of an image in it."""

import json
from dataclasses import dataclass
from typing import Any

from glm_cluster import web
from glm_cluster.addresses import REGISTRY
from glm_cluster.paths import Paths

MANIFEST_TYPES = ", ".join(
    ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
)


def registry_config(paths: Paths) -> dict[str, object]:
    """Return docker-registry's configuration (JSON is YAML)."""
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(paths.registry_storage)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }


@dataclass(frozen=True)
class Layer:
    """A layer as it lies in the registry."""

    digest: str
    compressed_bytes: int


def is_answering() -> bool:
    """Whether the registry answers."""
    web.get(f"http://{REGISTRY}/v2/")
    return True


def layers(repository: str, reference: str) -> list[Layer]:
    """Return an image's layers, the base's first."""
    url = f"http://{REGISTRY}/v2/{repository}/manifests/{reference}"
    manifest = json.loads(web.get(url, headers={"Accept": MANIFEST_TYPES}))
    return [layer(entry) for entry in manifest["layers"]]


def layer(entry: dict[str, Any]) -> Layer:
    return Layer(entry["digest"], entry["size"])
