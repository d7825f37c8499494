"""Builders of GLMDeployments and of what is observed of them. Every argument has a harmless default."""

from dataclasses import replace
from typing import Any

from glm_operator.api.spec import GLMDeployment, parse_deployment
from glm_operator.layout import Layout, plan
from glm_operator.observe.observed import Observed, ObservedGroup, ObservedPod
from glm_operator.rollout.records import accept
from glm_operator.rollout.target import Target

Body = dict[str, Any]


def a_body(name: str = "chat", *, namespace: str = "models", uid: str = "uid-1", **spec: Any) -> Body:
    """Return a GLMDeployment as the API server would; keywords replace whole parts of the spec."""
    return {
        "apiVersion": "glm-operator.io/v1alpha1",
        "kind": "GLMDeployment",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
            "hardware": {"device": "cpu"},
            "parallelism": {"tensor": 1, "expert": 2},
            **spec,
        },
    }


def a_deployment(name: str = "chat", **spec: Any) -> GLMDeployment:
    return parse_deployment(a_body(name, **spec))


def a_layout(deployment: GLMDeployment) -> Layout:
    layout = plan(deployment)
    assert isinstance(layout, Layout), layout
    return layout


def a_target(**spec: Any) -> Target:
    deployment = a_deployment(**spec)
    return accept(deployment, a_layout(deployment), Observed())


def moving_to(revision: str = "new", *, older: tuple[str, ...] = ("old",), num_pods: int = 1, **spec: Any) -> Target:
    """Return a target at a revision, with the templates of older ones, all alike but for their names."""
    target = a_target(**spec)
    (template,) = target.templates.values()
    template = {**template, "spec": {**template["spec"], "replicas": num_pods}}
    return replace(target, revision=revision, templates=dict.fromkeys((revision, *older), template))


def a_pod(group: str, index: int = 0, *, revision: str = "new", ready: bool = True, **changes: Any) -> ObservedPod:
    fields: dict[str, Any] = {
        "name": f"{group}-{index}",
        "uid": f"uid-{group}-{index}-{revision}",
        "index": index,
        "controller": None,
        "revision": revision,
        "is_ready": ready,
        "is_leaving": False,
        "is_scheduled": True,
        "running_since": None,
        "ip": "10.0.0.1",
        "restarts": 0,
        "trouble": None,
    }
    return ObservedPod(**{**fields, **changes})


def a_group(
    index: int = 0,
    *,
    revision: str = "new",
    ready: bool = True,
    pods: tuple[ObservedPod, ...] | None = None,
    **changes: Any,
) -> ObservedGroup:
    """Return a group of one pod, of its StatefulSet's revision, unless pods are given."""
    name = f"chat-g{index}"
    if pods is None:
        pods = (a_pod(name, revision=revision, ready=ready),)
    fields = {"exists": True, "revision": revision, "num_pods": max(1, len(pods)), **changes}
    return ObservedGroup(index=index, name=name, pods=pods, **fields)


def observed(*groups: ObservedGroup) -> Observed:
    return Observed(groups={group.index: group for group in groups})
