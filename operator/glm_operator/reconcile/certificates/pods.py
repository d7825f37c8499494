"""Tells pods of certificates that were made anew: the kubelet mounts again when a pod changes, within half a second."""

import logging
from collections.abc import Iterable

from glm_operator import names
from glm_operator.errors import KubeError, Vanishing
from glm_operator.manifest import Manifest, name_of
from glm_operator.observe.observed import Observed
from glm_operator.reconcile.certificates.issue import Use
from glm_operator.reconcile.ports import Cluster
from glm_operator.render import speaks_tls

logger = logging.getLogger(__name__)

Pod = tuple[str, str]  # name and uid


def mounting(observed: Observed, use: Use) -> list[Pod]:
    """Return the pods that show a certificate."""
    if use is Use.GATEWAY:
        return [(pod.name, pod.uid) for pod in observed.gateway if not pod.is_leaving]
    found = []
    for group in observed.groups.values():
        live = observed.stateful_set(group.name)
        if live is not None and speaks_tls(live["spec"]["template"]):
            found += [(pod.name, pod.uid) for pod in group.pods]
    return found


def may_wait(observed: Observed) -> bool:
    """Tell whether a pod of a group has a node and does not run yet, or one of the gateway begins: its Secret may miss.

    Pods of the gateway do not wait for theirs, and ask no group that speaks TLS before it comes.
    """
    if any(not (pod.is_ready or pod.is_leaving or pod.has_ended) for pod in observed.gateway):
        return True
    return any(
        pod.is_scheduled and pod.running_since is None and not pod.is_ready and not pod.is_leaving
        for group in observed.groups.values()
        for pod in group.pods
    )


async def tell(kube: Cluster, body: Manifest, pods: Iterable[Pod], mark: str) -> None:
    """Have the kubelet bring the files now. Where it cannot be, they come within a minute or so."""
    namespace = body["metadata"]["namespace"]
    for name, uid in pods:
        try:
            await kube.note(name, namespace, uid, names.CERTIFICATE_ANNOTATION, mark)
        except Vanishing:
            raise
        except KubeError as error:
            logger.info("pod %s is not told of its certificate: %s", name, error)
        else:
            logger.info("deployment=%s/%s told Pod %s", namespace, name_of(body), name)
