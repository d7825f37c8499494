"""Which deployments are due when the watches tell that something has changed."""

from glm_operator import names
from glm_operator.cluster.cache import Cache
from glm_operator.handlers.queue import Key, Queue, Urgency
from glm_operator.rollout.behind import gateways_of, sharers

TOLD_OTHERS = ("ControllerRevision", "StatefulSet")
"""Kinds by which a deployment is known to gateways of others: what was accepted of it, and which revisions it runs. Our
own write of its status wakes nobody, and it is accepted after the event of its edit."""


def wake(queue: Queue, cache: Cache, kind: str, name: tuple[str, str]) -> None:
    """Note that a deployment may have changed: by a person, or something that it owns. Then others that it matters to.

    name: namespace and name.
    """
    queue.add(Key(*name), Urgency.EDIT if kind == names.KIND else Urgency.EVENT)
    others = sharers if kind == names.KIND else gateways_of if kind in TOLD_OTHERS else None
    for other in others(name, cache.bodies()) if others is not None else ():
        queue.add(Key(*other), Urgency.EVENT)
