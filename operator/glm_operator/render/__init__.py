"""render(deployment, layout) -> manifests. Pure: the same input gives the same bytes."""

from collections.abc import Iterable

from glm_operator import names
from glm_operator.api.spec import GLMDeployment
from glm_operator.layout import Layout
from glm_operator.manifest import Manifest
from glm_operator.render.group import (
    group_template,
    missing_pod,
    needs_another,
    revision_of,
    stateful_set,
    template_of,
    trial_pod,
)
from glm_operator.render.network import rendezvous, service, service_account
from glm_operator.render.pod import speaks_tls

__all__ = [
    "Manifest",
    "group_template",
    "missing_pod",
    "needs_another",
    "render",
    "render_shared",
    "revision_of",
    "service_account",
    "speaks_tls",
    "stateful_set",
    "template_of",
    "trial_pod",
]


def render(
    deployment: GLMDeployment, layout: Layout, groups: Iterable[int] | None = None, *, has_tls: bool = False
) -> list[Manifest]:
    """Return every object of a deployment in the order to apply it. groups: indices; default: all of spec.replicas.

    has_tls: groups speak TLS with a gateway; on one machine, where there are no Secrets, they do not.
    """
    template = group_template(deployment, layout, has_tls=has_tls)
    revision, indices = revision_of(template), range(deployment.spec.replicas) if groups is None else groups
    shared = render_shared(deployment.name, deployment.namespace)
    made = [names.group_name(deployment.name, index) for index in indices]
    return [*shared, *(stateful_set(template, deployment.namespace, group, revision) for group in made)]


def render_shared(deployment: str, namespace: str, selector: dict[str, str] | None = None) -> list[Manifest]:
    """Return the objects all groups share. They depend on no spec, so no bad edit can touch them.

    selector: of the pods that clients are led to; None: the groups themselves.
    """
    return [
        service_account(deployment, namespace),
        rendezvous(deployment, namespace),
        service(deployment, namespace, selector),
    ]
