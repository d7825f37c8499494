"""Labels of everything the operator makes, and the selectors that find it. Pure."""

from glm_operator import names


def labels(deployment: str, role: str) -> dict[str, str]:
    """Return the labels of one object. role: what it is for ("worker", "network", "record")."""
    return {
        names.NAME_LABEL: "glm-operator",
        names.INSTANCE_LABEL: deployment,
        names.COMPONENT_LABEL: role,
        names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
        names.DEPLOYMENT_LABEL: deployment,
    }


def group_labels(deployment: str, group: str, revision: str) -> dict[str, str]:
    """Return the labels of one group's StatefulSet and of its pods."""
    return {**labels(deployment, "worker"), names.GROUP_LABEL: group, names.REVISION_LABEL: revision}


def scrape_annotations() -> dict[str, str]:
    """Return the annotations by which a Prometheus without our PodMonitor finds the metrics of a pod."""
    return {
        names.SCRAPE_ANNOTATION: "true",
        names.SCRAPE_PORT_ANNOTATION: str(names.MANAGEMENT_PORT),
        names.SCRAPE_PATH_ANNOTATION: names.METRICS_PATH,
    }


def leader_selector(deployment: str) -> dict[str, str]:
    """Return the labels only the rank-0 pods of a deployment carry: what Services and the scale subresource select."""
    return {names.DEPLOYMENT_LABEL: deployment, names.POD_INDEX_LABEL: "0"}


def selector_text(selector: dict[str, str]) -> str:
    """Write a selector the way the API and status.selector want it."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
