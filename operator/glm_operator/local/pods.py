"""Rendered StatefulSets -> the processes that stand for their pods. Pure.

A pod becomes one `glm-worker serve` process with the container's environment. What differs from a cluster is decided
here: a pod's address is a loopback address of its own (so that the fixed ports stay the same), the leader is named by
address, downward-API fields are filled in, and the run folder lies in the state folder. What is shared by all that
runs on the machine is added by `up`: CUDA devices (gpus.py) and the ports where ranks meet (rendezvous.py).
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glm_operator import names
from glm_operator.local.errors import LocalError
from glm_operator.manifest import Manifest

AWAITS_POLICY = "GLM_AWAITS_POLICY"
"""Only where a controller tells it, and no matter to a pod that runs: it was told what is in force."""


GATEWAY_INDEX = 255
"""Where the number of a group stands in the gateway's address."""


def gateway_address(network: int) -> str:
    """Return the address of a deployment's gateway, which no pod has."""
    return f"127.{network}.{GATEWAY_INDEX}.1"


@dataclass(frozen=True)
class LocalPod:
    """One pod of a replica group, as a process to be."""

    name: str
    group: str
    index: int  # within the group; 0 leads it
    address: str
    arguments: tuple[str, ...]  # of the worker program, without the program itself
    env: Mapping[str, str]
    num_gpus: int
    start_limit_s: float

    @property
    def fingerprint(self) -> str:
        """Equal for two pods exactly when nothing needs a restart to get from one to the other."""
        facts = [
            self.name,
            self.group,
            self.index,
            self.address,
            self.arguments,
            sorted((name, value) for name, value in self.env.items() if name != AWAITS_POLICY),
            self.num_gpus,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Placement:
    """Where pods may live on this machine."""

    network: int  # second byte of every address of this deployment: 127.NETWORK.GROUP.POD+1; the gateway's GROUP is 255
    run_dir: Callable[[str], Path]  # pod name -> its folder for sockets

    def address(self, group_index: int, pod_index: int) -> str:
        if group_index >= GATEWAY_INDEX or pod_index > 253:
            raise LocalError(f"group {group_index}, pod {pod_index}: local mode has room for 255 groups of 254 pods")
        return f"127.{self.network}.{group_index}.{pod_index + 1}"


def index_of(group: str) -> int:
    """Return the index of a group, which its name ends in: nano-g3 is 3."""
    return int(group.rpartition("-g")[2])


def local_pods(manifests: Sequence[Manifest], placement: Placement) -> list[LocalPod]:
    """Return the processes that stand for the pods of every StatefulSet, leaders first in their group.

    Raises LocalError for what only a cluster has (claims, secrets, several containers).
    """
    stateful_sets = [manifest for manifest in manifests if manifest["kind"] == "StatefulSet"]
    return [pod for manifest in stateful_sets for pod in _pods_of_group(manifest, placement)]


def _pods_of_group(manifest: Manifest, placement: Placement) -> list[LocalPod]:
    group, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace", "default")
    group_index = index_of(group)
    template = manifest["spec"]["template"]["spec"]
    container = _only_container(group, template)
    _refuse_cluster_volumes(group, template)
    leader_address = placement.address(group_index, 0)

    pods = []
    for index in range(manifest["spec"]["replicas"]):
        pod, address = names.pod_name(group, index), placement.address(group_index, index)
        env = _rendered(container, _fields(pod, index, namespace, address))
        env |= _adapted(address, leader_address, placement.run_dir(pod))
        pods.append(
            LocalPod(
                name=pod,
                group=group,
                index=index,
                address=address,
                arguments=tuple(container["args"]),
                env=env,
                num_gpus=int(env["GLM_RANKS_PER_POD"]) if env["GLM_DEVICE"] == "cuda" else 0,  # a rank takes one
                start_limit_s=float(env["GLM_START_LIMIT_S"]),
            )
        )
    return pods


def _only_container(group: str, template: Manifest) -> Manifest:
    containers = template["containers"]
    if len(containers) != 1 or template.get("initContainers"):
        raise LocalError(f"group {group} has more than one container; local mode runs one process a pod")
    return dict(containers[0])


def _refuse_cluster_volumes(group: str, template: Manifest) -> None:
    for volume in template.get("volumes", []):
        kinds = set(volume) - {"name"}
        if kinds - {"emptyDir"}:
            raise LocalError(
                f"group {group} mounts volume {volume['name']!r} ({', '.join(sorted(kinds))}), which only a cluster "
                "has; in local mode use a model source of the form file:///absolute/folder or builtin://glm-nano"
            )


def _fields(pod: str, index: int, namespace: str, address: str) -> dict[str, str]:
    """What the downward API would say of the pod."""
    return {
        "metadata.name": pod,
        "metadata.namespace": namespace,
        f"metadata.labels['{names.POD_INDEX_LABEL}']": str(index),
        "status.podIP": address,
    }


def _rendered(container: Manifest, fields: Mapping[str, str]) -> dict[str, str]:
    """The container's environment as the kubelet would fill it in."""
    env = {}
    for variable in container["env"]:
        name = variable["name"]
        if "valueFrom" not in variable:
            env[name] = variable["value"]
            continue
        path = variable["valueFrom"].get("fieldRef", {}).get("fieldPath")
        if path not in fields:
            raise LocalError(
                f"environment variable {name} comes from {variable['valueFrom']}, which only a cluster has"
            )
        env[name] = fields[path]
    return env


def _adapted(address: str, leader_address: str, run_dir: Path) -> dict[str, str]:
    """Settings that differ from a cluster's whatever the spec says.

    The leader is named by address also in a group of one pod, whose rendered 127.0.0.1 all groups here would share.
    """
    return {
        "GLM_HOST": address,
        "GLM_LEADER_HOST": leader_address,
        "GLM_RUN_DIR": str(run_dir),
        "GLM_DRAIN_ACCEPT_S": "0",  # no endpoints have to follow readiness here
        "GLM_READINESS_LAG_S": "0",  # nor does a probe have to find it
    }
