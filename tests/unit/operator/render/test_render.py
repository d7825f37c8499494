"""What the operator makes of a deployment: one test a promise, not one a field."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator import names
from glm_operator.api.crd import structural_schema
from glm_operator.api.spec import MOVES_NOTHING, GLMDeploymentSpec
from glm_operator.render import (
    group_template,
    missing_pod,
    needs_another,
    render,
    revision_of,
    stateful_set,
    template_of,
    trial_pod,
)
from unit.operator.operator_builders import a_deployment, a_layout

CUDA = {"device": "cuda", "gpu": {"perNode": 8}}
AIR = {"name": "GLM-4.5-Air", "source": "pvc://weights/air"}
TWO_PODS = {"hardware": {"device": "cpu", "ranksPerPod": 1}}


def manifests(**spec: Any) -> list[dict[str, Any]]:
    deployment = a_deployment(**spec)
    return render(deployment, a_layout(deployment))


def group(index: int = 0, **spec: Any) -> dict[str, Any]:
    return [item for item in manifests(**spec) if item["kind"] == "StatefulSet"][index]


def pod(**spec: Any) -> dict[str, Any]:
    template: dict[str, Any] = group(**spec)["spec"]["template"]["spec"]
    return template


def template(**spec: Any) -> dict[str, Any]:
    deployment = a_deployment(**spec)
    return group_template(deployment, a_layout(deployment))


def environment(**spec: Any) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod(**spec)["containers"][0]["env"]}


def test_each_group_is_a_stateful_set_of_its_own() -> None:
    made = [(item["kind"], item["metadata"]["name"]) for item in manifests(replicas=2)]
    assert made == [
        ("ServiceAccount", "chat-worker"),
        ("Service", "chat-ranks"),
        ("Service", "chat"),
        ("StatefulSet", "chat-g0"),
        ("StatefulSet", "chat-g1"),
    ]


def test_no_groups_leave_what_they_share() -> None:
    assert "StatefulSet" not in {item["kind"] for item in manifests(replicas=0)}


def test_a_group_starts_at_once_and_is_replaced_only_by_us() -> None:
    spec = group(**TWO_PODS)["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"], spec["updateStrategy"]) == (
        2,
        "Parallel",
        {"type": "OnDelete"},
    )


def test_pods_of_a_group_meet_at_their_rank_0_by_name() -> None:
    assert environment(**TWO_PODS)["GLM_LEADER_HOST"] == "chat-g0-0.chat-ranks.models.svc"


def test_the_init_of_the_image_starts_the_worker() -> None:
    container = pod()["containers"][0]
    assert (container.get("command"), container["args"]) == (None, ["serve"])


def test_pods_know_their_index_from_their_label() -> None:
    (index,) = [entry for entry in pod()["containers"][0]["env"] if entry["name"] == "GLM_POD_INDEX"]
    assert index["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{names.POD_INDEX_LABEL}']"


def test_clients_reach_ready_rank_0_pods_only() -> None:
    service = next(item for item in manifests() if item["metadata"]["name"] == "chat")["spec"]
    assert service["selector"] == {names.DEPLOYMENT_LABEL: "chat", names.POD_INDEX_LABEL: "0"}
    assert "publishNotReadyAddresses" not in service


def test_ranks_find_each_other_before_they_are_ready() -> None:
    service = next(item for item in manifests() if item["metadata"]["name"] == "chat-ranks")["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)


def test_pods_meet_the_restricted_standard() -> None:
    spec = pod(model=AIR, hardware=CUDA, parallelism={"expert": 8})
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert spec["automountServiceAccountToken"] is False


def test_a_claim_is_mounted_read_only() -> None:
    spec = pod(model=AIR, hardware=CUDA, parallelism={"expert": 8})
    (mount,) = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "model"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "model"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/models", True)
    assert volume["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}


def test_a_pod_asks_for_a_gpu_a_rank() -> None:
    resources = pod(model=AIR, hardware=CUDA, parallelism={"expert": 4})["containers"][0]["resources"]
    assert resources["limits"] == {"nvidia.com/gpu": "4"}


def test_ranks_on_cpu_ask_for_little_and_have_no_cpu_limit() -> None:
    resources = pod()["containers"][0]["resources"]
    assert resources["requests"]["cpu"] == "200m"
    assert "limits" not in resources


def test_nothing_empty_is_sent_that_the_server_drops() -> None:
    limits = {"limits": {"cpu": "1", "memory": "4Gi"}}
    tolerations = [{"key": "gpu", "value": "", "effect": "NoSchedule"}]
    hardware = {"device": "cpu", "resources": limits, "tolerations": tolerations}
    spec = pod(model={"name": "custom", "source": "file:///opt/model"}, hardware=hardware)
    (container,) = spec["containers"]
    assert "" not in [entry.get("value") for entry in container["env"]]
    assert container["resources"] == limits
    assert spec["tolerations"] == [{"key": "gpu", "effect": "NoSchedule"}]


def test_requests_in_the_spec_replace_ours_and_limits_stand_for_requests() -> None:
    given = {"requests": {"cpu": 1}, "limits": {"memory": "4Gi"}}
    resources = pod(hardware={"device": "cpu", "resources": given})["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}


def test_a_missing_pod_is_what_its_stateful_set_would_make() -> None:
    made = group(1, replicas=2)
    made["metadata"]["uid"] = "uid-set"
    missing = missing_pod(made, 3)
    assert (missing["metadata"]["name"], missing["spec"]) == ("chat-g1-3", made["spec"]["template"]["spec"])
    assert missing["metadata"]["labels"] == {
        **made["spec"]["template"]["metadata"]["labels"],
        names.POD_INDEX_LABEL: "3",
    }
    assert missing["metadata"]["ownerReferences"][0]["uid"] == "uid-set"


def test_a_pod_on_trial_takes_no_name_of_one_that_runs() -> None:
    metadata = trial_pod(template(), "models", "chat-g0", "r1", owner_uid="uid-1")["metadata"]
    assert (metadata["generateName"], "name" in metadata) == ("chat-g0-", False)


@pytest.mark.parametrize(("accept", "deadline"), [(0, 0), (5, 120), (60, 600)])
def test_a_pod_is_given_longer_than_its_drain(accept: int, deadline: int) -> None:
    limits = {"engine": {"limits": {"drainAcceptSeconds": accept, "drainDeadlineSeconds": deadline}}}
    told = environment(**limits)
    assert (told["GLM_DRAIN_ACCEPT_S"], told["GLM_DRAIN_DEADLINE_S"]) == (str(accept), str(deadline))
    probe = pod(**limits)["containers"][0]["readinessProbe"]
    lag = probe["periodSeconds"] * probe["failureThreshold"]
    assert told["GLM_READINESS_LAG_S"] == str(lag)
    assert pod(**limits)["terminationGracePeriodSeconds"] > accept + lag + deadline


def test_a_slow_start_is_waited_for() -> None:
    probe = pod(engine={"limits": {"startLimitSeconds": 601}})["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 601


def test_shared_memory_is_memory_of_the_size_asked_for() -> None:
    volumes = {volume["name"]: volume for volume in pod(hardware={"device": "cpu", "sharedMemory": "2Gi"})["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


def test_the_template_carries_its_revision_where_pods_and_supervisors_read_it() -> None:
    revision = revision_of(template())
    assert group()["spec"]["template"]["metadata"]["labels"][names.REVISION_LABEL] == revision
    assert environment()["GLM_REVISION"] == revision


def test_groups_share_a_revision_and_replicas_have_no_part_in_it() -> None:
    revisions = {
        item["metadata"]["labels"][names.REVISION_LABEL]
        for replicas in (1, 3)
        for item in manifests(replicas=replicas)
        if item["kind"] == "StatefulSet"
    }
    assert len(revisions) == 1


def test_a_group_is_made_from_its_template_under_its_own_name() -> None:
    made = stateful_set(template(**TWO_PODS), "models", "chat-g7", "r1", {"why": "here"})
    assert (made["metadata"]["name"], made["metadata"]["annotations"]) == ("chat-g7", {"why": "here"})
    text = json.dumps(made)
    assert not {"<", ">"} & set(text), "a placeholder is left"
    assert made["spec"]["selector"]["matchLabels"][names.GROUP_LABEL] == "chat-g7"
    told = {entry["name"]: entry.get("value") for entry in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert (told["GLM_GROUP"], told["GLM_REVISION"]) == ("chat-g7", "r1")
    assert told["GLM_LEADER_HOST"] == "chat-g7-0.chat-ranks.models.svc"


@pytest.mark.parametrize("spec", [{}, TWO_PODS, {"model": AIR, "hardware": CUDA, "parallelism": {"expert": 8}}])
def test_the_template_of_a_live_group_is_the_one_it_was_made_from(spec: dict[str, Any]) -> None:
    made = template(**spec)
    live = stateful_set(made, "models", "chat-g3", revision_of(made))
    live["spec"] |= {"revisionHistoryLimit": 10}  # a default of the API server
    live["spec"]["template"]["metadata"]["creationTimestamp"] = None
    assert template_of(live) == made


def test_only_what_no_update_can_change_needs_another_stateful_set() -> None:
    wanted = group()
    live = {**wanted, "spec": {**wanted["spec"], "replicas": 9, "revisionHistoryLimit": 10}}
    assert not needs_another(wanted, live)
    for field in ("selector", "serviceName", "podManagementPolicy"):
        assert needs_another(wanted, {**live, "spec": {**live["spec"], field: "other"}})


def test_groups_that_speak_tls_differ_in_what_that_needs_and_in_nothing_else() -> None:
    deployment = a_deployment()
    plain, tls = (group_template(deployment, a_layout(deployment), has_tls=each)["spec"] for each in (False, True))
    before, after = plain["template"]["spec"], tls["template"]["spec"]
    (one,), (two,) = before["containers"], after["containers"]
    assert [port["name"] for port in two["ports"]] == ["https", "management", "coordinator"]
    assert [port["containerPort"] for port in two["ports"]] == [port["containerPort"] for port in one["ports"]]
    assert two["volumeMounts"] == [*one["volumeMounts"], {"name": "tls", "mountPath": "/etc/glm/tls", "readOnly": True}]
    secret = {"secretName": "chat-worker-tls", "defaultMode": 0o440}
    assert after["volumes"] == [*before["volumes"], {"name": "tls", "secret": secret}]
    assert (one["args"], two["args"]) == (["serve"], ["serve", "--tls-folder", "/etc/glm/tls"])
    for part in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert two[part] == one[part], "probes go to the management port"
    same = {key: value for key, value in two.items() if key not in ("args", "ports", "volumeMounts")}
    assert same == {key: one[key] for key in same}


def test_names_of_secrets_are_reserved_and_none_is_another_deployments() -> None:
    for name in (names.workers_certificate("chat"), names.gateway_certificate("chat")):
        assert re.search(f"{names.RESERVED_SUFFIXES}$", name), "no deployment may have it"
        assert len(name.replace("chat", "x" * names.MAX_NAME_LENGTH)) <= 63


def test_names_are_short_enough_at_their_longest() -> None:
    name = "x" * names.MAX_NAME_LENGTH
    labels = names.group_name(name, 999), names.pod_name(names.group_name(name, 999), 99), names.service_account(name)
    # the StatefulSet controller adds a hash of ten to a group's name, in a label of its pods
    assert all(len(label) <= 63 - 11 for label in labels)


CHANGES: dict[str, Any] = {
    "model.servedName": "other",
    "hardware.ranksPerPod": 1,
    "hardware.nodeSelector": {"pool": "gpu"},
    "hardware.tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "hardware.resources": {"requests": {"cpu": "1"}},
    "hardware.sharedMemory": "2Gi",
    "parallelism": {"expert": 4},
    "engine": {"image": "mine:1"},
    "engine.image": "mine:1",
    "engine.imagePullPolicy": "Always",
    "engine.imagePullSecrets": [{"name": "registry"}],
    "engine.chat": {"controlTokens": "Token"},
    "engine.chat.controlTokens": "Token",
    "engine.chat.undeclaredTools": "Call",
    "engine.execution": {"prefixCache": "Disabled"},
    "engine.execution.prefixCache": "Disabled",
    "engine.execution.deterministic": "Disabled",
    "engine.execution.dtype": "Float32",
    "engine.execution.kvDtype": "Bfloat16",
    "engine.execution.threadsPerRank": 2,
    "engine.execution.lookAhead": "On",
    "engine.tracing": {"endpoint": "http://collector:4318/v1/traces"},
    "engine.tracing.endpoint": "http://collector:4318/v1/traces",
    "engine.limits": {"maxNumSeqs": 3},
    "engine.limits.maxModelLen": 512,
    "engine.limits.maxBatchTokens": 64,
    "engine.limits.maxNumSeqs": 3,
    "engine.limits.maxWaitingRequests": 9,
    "engine.limits.maxWaitingTokens": 9,
    "engine.limits.kvCache": "64Mi",
    "engine.limits.drainAcceptSeconds": 7,
    "engine.limits.drainDeadlineSeconds": 7,
    "engine.limits.heartbeatLimitSeconds": 7,
    "engine.limits.startLimitSeconds": 70,
    "hardware.resources.limits": {"memory": "4Gi"},
    "hardware.resources.requests": {"memory": "4Gi"},
}
"""A value for every optional field of a deployment on cpu, none of them its default."""

BASE: dict[str, Any] = {"hardware": {"device": "cpu"}, "model": {"name": "glm-nano", "source": "builtin://glm-nano"}}


def optional_paths(schema: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the dotted paths of every optional field of a spec."""
    found: set[str] = set()
    for name, field in schema.get("properties", {}).items():
        if name not in schema.get("required", []):
            found.add(prefix + name)
        found |= optional_paths(field, f"{prefix}{name}.")
    return found


def test_the_changes_below_cover_every_optional_field() -> None:
    # What moves nothing changes no group; a GPU and its kernels belong to device cuda; degrees are changed together.
    elsewhere = {"hardware.gpu", "hardware.gpu.resourceName", "hardware.gpu.perNode", "engine.execution.cudaKernels"}
    elsewhere |= {"parallelism.expert", "parallelism.tensor"}
    paths = optional_paths(structural_schema(GLMDeploymentSpec))
    assert set(CHANGES) == {path for path in paths - elsewhere if path.partition(".")[0] not in MOVES_NOTHING}


@pytest.mark.parametrize("rollout", [{"maxUnavailable": "50%"}, {"paused": True}, {"adopt": "Automatic"}])
def test_how_groups_move_changes_none_of_their_bytes(rollout: dict[str, Any]) -> None:
    assert rendered({**BASE, "rollout": rollout}) == rendered(BASE)


def rendered(spec: dict[str, Any]) -> str:
    return json.dumps(manifests(**spec))


def with_field(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {**spec, head: with_field(spec.get(head, {}), rest, value) if rest else value}


def without_field(spec: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the spec as a merge patch with null leaves it: the field gone, the objects around it still there."""
    head, _, rest = path.partition(".")
    if rest and head in spec:
        return {**spec, head: without_field(spec[head], rest)}
    return {key: value for key, value in spec.items() if key != head}


@pytest.mark.parametrize("path", CHANGES)
def test_every_optional_field_does_something(path: str) -> None:
    assert rendered(with_field(BASE, path, CHANGES[path])) != rendered(BASE)


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted(CHANGES)), unique=True, max_size=6))
def test_fields_set_and_unset_leave_the_bytes_of_never_set(paths: list[str]) -> None:
    spec = BASE
    for path in paths:
        spec = with_field(spec, path, CHANGES[path])
    for path in sorted(paths, reverse=True):
        spec = without_field(spec, path)
    assert rendered(spec) == rendered(BASE)


def test_a_pod_tells_prometheus_where_its_metrics_are_and_keeps_that_in_a_trial() -> None:
    expected = {"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "prometheus.io/path": "/metrics"}
    made = stateful_set(template(), "models", "chat-g0", "abc")
    assert made["spec"]["template"]["metadata"]["annotations"] == expected
    assert trial_pod(template(), "models", "chat-g0", "abc", owner_uid="u")["metadata"]["annotations"] == expected


def test_a_pod_knows_whose_it_is() -> None:
    made = environment()
    assert (made["GLM_NAMESPACE"], made["GLM_DEPLOYMENT"]) == ("models", "chat")


def test_promises_can_be_put_by_who_knows_the_uid_of_the_deployment() -> None:
    token = environment()["GLM_MANAGEMENT_TOKEN"]
    assert token == names.management_token(a_deployment().metadata.uid)
    assert len({token, names.management_token("another"), names.management_token("")}) == 3
    assert len(token) == 32
