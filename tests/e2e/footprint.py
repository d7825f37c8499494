"""What the stories make on a cluster, and what of it may not be there before: it would be somebody's. Pure.

On a given cluster everything that the stories make is deleted at the end, and their operator serves every namespace.
"""

from collections.abc import Collection

from e2e.refusals import FULL_NAMESPACE

OPERATOR_NAMESPACE = "glm-system"
MODEL_NAMESPACE = "models"
NAMESPACES = (OPERATOR_NAMESPACE, MODEL_NAMESPACE, FULL_NAMESPACE)


def in_the_way(namespaces: Collection[str], releases: Collection[str], deployments: Collection[str]) -> str | None:
    """Return why the stories must not run on a given cluster, or None.

    All are what the cluster has: its namespaces, the releases of our chart and the GLMDeployments, as NAMESPACE/NAME.
    """
    if ours := [name for name in NAMESPACES if name in namespaces]:
        return (
            f"the cluster of E2E_KUBECONFIG has the namespace {', '.join(ours)} already. The stories make "
            f"{', '.join(NAMESPACES)} and delete them with all that is in them; use another cluster, or delete "
            "what is there yourself if nobody needs it"
        )
    if releases:
        return (
            f"the cluster of E2E_KUBECONFIG has the operator installed: {', '.join(sorted(releases))}. The stories "
            "install one that serves every namespace, and two would work against each other; use another cluster"
        )
    if deployments:
        return (
            f"the cluster of E2E_KUBECONFIG has GLMDeployments: {', '.join(sorted(deployments))}. The operator under "
            "test would take them over with the images under test; use another cluster"
        )
    return None
