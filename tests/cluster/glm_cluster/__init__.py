"""A real Kubernetes on one Linux machine, built from source modules, for tests and for people.

Everything runs in one network namespace, so nothing of the machine's network changes; programs and images live in a
cache outside the checkout, all that is running in a state folder that `down` removes. Standard library only.
"""

from glm_cluster.cluster import Cluster
from glm_cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError"]
