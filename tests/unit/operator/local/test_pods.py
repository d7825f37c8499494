"""Rendered StatefulSets as processes of this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glm_operator.api.spec import parse_deployment
from glm_operator.layout import Layout, plan
from glm_operator.local.errors import LocalError
from glm_operator.local.pods import LocalPod, Placement, local_pods
from glm_operator.manifest import Manifest
from glm_operator.render import render

PLACEMENT = Placement(network=64, run_dir=lambda pod: Path("/state/run") / pod)


def manifests(*, replicas: int = 1, expert: int = 2, ranks_per_pod: int = 2, **spec: Any) -> list[Manifest]:
    body = {
        "apiVersion": "glm-operator.io/v1alpha1",
        "kind": "GLMDeployment",
        "metadata": {"name": "nano"},
        "spec": {
            "model": {"name": "glm-nano", "source": "builtin://glm-nano"},
            "hardware": {"device": "cpu", "ranksPerPod": ranks_per_pod},
            "parallelism": {"expert": expert},
            "replicas": replicas,
            **spec,
        },
    }
    deployment = parse_deployment(body)
    layout = plan(deployment)
    assert isinstance(layout, Layout)
    return render(deployment, layout)


def pods(**spec: Any) -> list[LocalPod]:
    return local_pods(manifests(**spec), PLACEMENT)


def test_one_group_of_one_pod_is_one_process() -> None:
    (pod,) = pods()
    assert (pod.name, pod.group, pod.index, pod.address) == ("nano-g0-0", "nano-g0", 0, "127.64.0.1")
    assert pod.arguments == ("serve",)


def test_every_pod_of_every_group_has_an_address_of_its_own() -> None:
    addresses = [pod.address for pod in pods(replicas=2, expert=2, ranks_per_pod=1)]
    assert addresses == ["127.64.0.1", "127.64.0.2", "127.64.1.1", "127.64.1.2"]


def test_every_pod_listens_on_its_address_and_knows_the_leader_of_its_group() -> None:
    env = {pod.name: pod.env for pod in pods(replicas=2, expert=2, ranks_per_pod=1)}
    assert env["nano-g1-1"]["GLM_HOST"] == "127.64.1.2"
    assert env["nano-g1-1"]["GLM_LEADER_HOST"] == env["nano-g1-0"]["GLM_LEADER_HOST"] == "127.64.1.1"


def test_a_group_of_one_pod_does_not_share_the_rendered_loopback_address() -> None:
    assert [pod.env["GLM_LEADER_HOST"] for pod in pods(replicas=2)] == ["127.64.0.1", "127.64.1.1"]


def test_the_downward_api_is_filled_in() -> None:
    assert [pod.env["GLM_POD_INDEX"] for pod in pods(expert=4, ranks_per_pod=1)] == ["0", "1", "2", "3"]


def test_what_the_spec_says_of_the_engine_reaches_the_process() -> None:
    (pod,) = pods(engine={"limits": {"maxNumSeqs": 7, "startLimitSeconds": 33}})
    assert pod.env["GLM_MAX_NUM_SEQS"] == "7"
    assert pod.start_limit_s == 33


def test_a_pod_that_drains_waits_for_no_endpoints_to_follow() -> None:
    (pod,) = pods()
    assert (pod.env["GLM_DRAIN_ACCEPT_S"], pod.env["GLM_READINESS_LAG_S"]) == ("0", "0")


def test_a_pod_takes_a_gpu_for_each_of_its_ranks() -> None:
    hardware = {"device": "cuda", "gpu": {"perNode": 8, "resourceName": "example.com/accelerator"}}
    assert [pod.num_gpus for pod in pods(expert=4, hardware=hardware)] == [4]
    assert [pod.num_gpus for pod in pods()] == [0]


def test_a_claim_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(LocalError, match=r"persistentVolumeClaim.*file:///absolute/folder"):
        pods(model={"name": "GLM-4.5-Air", "source": "pvc://weights/air"})


def test_a_field_reference_nobody_can_fill_in_is_refused_by_name() -> None:
    objects = manifests()
    container = objects[-1]["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "GLM_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    with pytest.raises(LocalError, match=r"GLM_NODE comes from .*spec\.nodeName"):
        local_pods(objects, PLACEMENT)


def test_a_second_container_is_refused() -> None:
    objects = manifests()
    template = objects[-1]["spec"]["template"]["spec"]
    template["containers"] = template["containers"] * 2
    with pytest.raises(LocalError, match="one process a pod"):
        local_pods(objects, PLACEMENT)


def test_more_groups_than_addresses_are_refused() -> None:
    with pytest.raises(LocalError, match="255 groups"):
        pods(replicas=257)


def test_the_fingerprint_is_the_same_for_the_same_spec_and_another_for_another() -> None:
    assert [p.fingerprint for p in pods()] == [p.fingerprint for p in pods()]
    assert pods()[0].fingerprint != pods(engine={"limits": {"maxNumSeqs": 7}})[0].fingerprint


def test_scaling_leaves_the_fingerprints_of_other_groups_alone() -> None:
    assert pods(replicas=1)[0].fingerprint == pods(replicas=3)[0].fingerprint


@pytest.mark.parametrize(
    "without_meaning",
    [
        {"hardware": {"nodeSelector": {"zone": "a"}}},
        {"hardware": {"tolerations": [{"operator": "Exists"}]}},
        {"hardware": {"resources": {"requests": {"cpu": "3"}, "limits": {"memory": "9Gi"}}}},
        {"hardware": {"sharedMemory": "8Gi"}},
        {"hardware": {"gpu": {"resourceName": "example.com/accelerator", "perNode": 8}}},
        {"engine": {"image": "registry.example/worker:1"}},
        {"engine": {"imagePullPolicy": "Always"}},
        {"engine": {"imagePullSecrets": [{"name": "pull"}]}},
        {"engine": {"limits": {"drainAcceptSeconds": 60}}},
    ],
    ids=lambda changes: "-".join((key := next(iter(changes)), next(iter(changes[key])))),
)
def test_what_only_a_cluster_has_changes_a_process_in_nothing_but_its_revision(without_meaning: dict[str, Any]) -> None:
    hardware = {"device": "cuda", "gpu": {"perNode": 8}}
    plain = pods(expert=4, hardware=hardware)
    changed = pods(expert=4, **without_meaning | {"hardware": hardware | without_meaning.get("hardware", {})})
    assert [but_for_its_revision(pod) for pod in changed] == [but_for_its_revision(pod) for pod in plain]


def but_for_its_revision(pod: LocalPod) -> LocalPod:
    return replace(pod, env={name: value for name, value in pod.env.items() if name != "GLM_REVISION"})
