"""A cluster that somebody else brought up, named by the environment: what the stories must be told of it."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glm_cluster.errors import ClusterError

KUBECONFIG, OPERATOR_IMAGE, WORKER_IMAGE = "E2E_KUBECONFIG", "E2E_OPERATOR_IMAGE", "E2E_WORKER_IMAGE"
REFERENCE = re.compile(r"[^\s@]+(@sha256:[0-9a-f]{64}|:[^\s:/@]+)")


@dataclass(frozen=True)
class GivenCluster:
    """Where it is, and the images under test as its nodes pull them."""

    kubeconfig: Path
    operator_image: str
    worker_image: str


def given_cluster(environ: Mapping[str, str]) -> GivenCluster | None:
    """Return the cluster that E2E_KUBECONFIG names; None without it. ClusterError says what is missing beside it."""
    kubeconfig = environ.get(KUBECONFIG)
    if not kubeconfig:
        return None
    if not Path(kubeconfig).is_file():
        raise ClusterError(f"{KUBECONFIG} is {kubeconfig}, which is no file; it names the kubeconfig of a cluster")
    for program in ("kubectl", "helm"):
        if shutil.which(program, path=environ.get("PATH")) is None:
            raise ClusterError(f"{KUBECONFIG} names a cluster, and there is no `{program}` on the PATH to use it with")
    operator_image, worker_image = (_reference(environ, name) for name in (OPERATOR_IMAGE, WORKER_IMAGE))
    return GivenCluster(Path(kubeconfig), operator_image, worker_image)


def _reference(environ: Mapping[str, str], variable: str) -> str:
    reference = environ.get(variable, "")
    if not REFERENCE.fullmatch(reference):
        stage = "operator" if variable == OPERATOR_IMAGE else "worker"
        is_set = f"is {reference!r}" if reference else "is not set"
        raise ClusterError(
            f"{variable} {is_set}; beside {KUBECONFIG} it holds the {stage} image (Dockerfile, --target {stage}) as "
            "that cluster's nodes pull it: REPOSITORY:TAG or REPOSITORY@sha256:DIGEST"
        )
    return reference
