"""What Helm makes of the chart."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from contract.helm import CHART, helm, needs_helm, of_kind, pod_metadata, pod_specs, rendered, rendered_notes
from contract.test_rbac import granted, granted_for_certificates, grants
from glm_operator.cli.files import read_planned
from glm_operator.render.policies import OPERATOR
from glm_operator.settings import OperatorSettings

pytestmark = needs_helm

DIGEST = "sha256:" + "a" * 64


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec["containers"], *spec.get("initContainers", [])]


def test_helm_lint_finds_nothing() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_helm_refuses_an_unknown_value() -> None:
    done = helm("template", "glm", str(CHART), "--set", "image.tga=1")
    assert done.returncode != 0
    assert "tga" in done.stderr


def test_helm_refuses_a_cluster_that_is_too_old() -> None:
    done = helm("template", "glm", str(CHART), "--kube-version", "1.27.9")
    assert (done.returncode != 0, "1.28" in done.stderr) == (True, True)


def test_all_namespaces_are_served_by_a_cluster_role() -> None:
    objects = rendered()
    operators = [item for item in of_kind(objects, "ClusterRole") if "crd" not in item["metadata"]["name"]]
    assert [sorted(grants(item["rules"])) for item in operators] == [sorted([*granted(), *granted_for_certificates()])]
    assert of_kind(objects, "Role") == []


def test_named_namespaces_are_served_by_roles_and_nothing_cluster_wide() -> None:
    objects = rendered({"watchNamespaces": ["a", "b"], "crd.upgrade": False})
    roles = of_kind(objects, "Role")
    assert [item["metadata"]["namespace"] for item in roles] == ["a", "b"]
    assert [sorted(grants(item["rules"])) for item in roles] == [sorted([*granted(), *granted_for_certificates()])] * 2
    assert of_kind(objects, "ClusterRole") == of_kind(objects, "ClusterRoleBinding") == []


@pytest.mark.parametrize(
    ("values", "makes_them"),
    [({}, True), ({"certificates": None}, True), ({"certificates.enabled": False}, False)],
    ids=["by default", "of a release from before", "switched off"],
)
def test_secrets_are_within_reach_only_where_certificates_are_made(values: dict[str, Any], makes_them: bool) -> None:
    objects = rendered({"watchNamespaces": ["a"], "crd.upgrade": False, **values})
    (role,), (deployment,) = of_kind(objects, "Role"), of_kind(objects, "Deployment")
    assert any(resource == "secrets" for _, resource, _ in grants(role["rules"])) is makes_them
    env = {item["name"]: item.get("value") for item in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["GLM_OPERATOR_CERTIFICATES"] == ("true" if makes_them else "false")


def test_with_the_default_hook_named_namespaces_still_need_a_cluster_role_for_the_crd() -> None:
    objects = rendered({"watchNamespaces": ["a"]})
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        (item,) = of_kind(objects, kind)
        assert "helm.sh/hook" in item["metadata"]["annotations"]
    (role,) = of_kind(objects, "ClusterRole")
    assert role["rules"] == [
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "resourceNames": ["glmdeployments.glm-operator.io"],
            "verbs": ["get", "patch"],
        }
    ]


def test_a_failed_hook_keeps_its_job_for_the_log_and_none_of_its_permissions() -> None:
    policies = {
        item["kind"]: set(item["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(","))
        for item in rendered()
        if "pre-upgrade" in item["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    }
    always = {"before-hook-creation", "hook-succeeded"}
    permissions = dict.fromkeys(("ServiceAccount", "ClusterRole", "ClusterRoleBinding"), always | {"hook-failed"})
    assert policies == permissions | {"Job": always}


def test_every_binding_is_to_an_account_and_a_role_of_this_release() -> None:
    objects = rendered()
    accounts = {item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")}
    roles = {item["metadata"]["name"] for item in of_kind(objects, "ClusterRole")}
    bindings = of_kind(objects, "ClusterRoleBinding")
    assert {item["roleRef"]["name"] for item in bindings} == roles
    assert {subject["name"] for item in bindings for subject in item["subjects"]} <= accounts


def test_every_pod_meets_the_restricted_pod_security_standard() -> None:
    specs = pod_specs(rendered())
    assert sorted(name.split("/")[0] for name in specs) == ["Deployment", "Job", "Pod"]
    for name, spec in specs.items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert {kind for volume in spec.get("volumes", []) for kind in volume} <= {"name", "emptyDir"}, name
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["readOnlyRootFilesystem"] is True, name


def test_the_init_of_the_image_starts_the_operator() -> None:
    (deployment,) = of_kind(rendered(), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "command" not in container


def test_every_container_says_what_it_needs() -> None:
    for name, spec in pod_specs(rendered()).items():
        for container in containers(spec):
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name


def test_what_the_values_say_of_pods_reaches_each() -> None:
    wanted: dict[str, Any] = {
        "image.pullSecrets": [{"name": "registry"}],
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
    }
    objects = rendered(wanted)
    specs = pod_specs(objects)
    assert len(specs) == 3
    for name, spec in specs.items():
        for value in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
            assert spec[value] == wanted[value], name
        assert spec["imagePullSecrets"] == wanted["image.pullSecrets"], name
        assert [container["resources"] for container in containers(spec)] == [wanted["resources"]], name


@pytest.mark.parametrize(("values", "kinds"), [("", ["Deployment"]), ("hooks.", ["Job", "Pod"])])
def test_labels_and_annotations_reach_the_operator_or_what_ends(values: str, kinds: list[str]) -> None:
    objects = rendered({f"{values}podLabels": {"team": "serving"}, f"{values}podAnnotations": {"note": "ours"}})
    found = pod_metadata(objects)
    for key, more in (("labels", ("team", "serving")), ("annotations", ("note", "ours"))):
        assert sorted(kind for kind, each in found.items() if more in each.get(key, {}).items()) == kinds


@pytest.mark.parametrize("name", ["glm-operator", "ours"])
def test_network_policies_know_the_operators_pods_by_any_name(name: str) -> None:
    labels = pod_metadata(rendered({"nameOverride": name}))["Deployment"]["labels"]
    assert any(known.items() <= labels.items() for known in OPERATOR)


def test_there_is_one_operator_and_never_two_at_once() -> None:
    (deployment,) = of_kind(rendered(), "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})


def test_a_digest_wins_over_a_tag() -> None:
    specs = pod_specs(rendered({"image.digest": DIGEST, "image.tag": "1.2.3"}))
    assert {c["image"] for spec in specs.values() for c in containers(spec)} == {f"glm-operator@{DIGEST}"}


def test_the_operator_is_told_the_worker_image_and_its_namespaces() -> None:
    (deployment,) = of_kind(rendered({"worker.image.tag": "9", "watchNamespaces": ["a", "b"]}), "Deployment")
    env = {item["name"]: item.get("value") for item in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["GLM_OPERATOR_WORKER_IMAGE"] == "glm-worker:9"
    assert env["GLM_OPERATOR_NAMESPACES"] == "a,b"


def test_every_setting_of_the_operator_in_the_chart_is_one_it_reads() -> None:
    (deployment,) = of_kind(rendered(), "Deployment")
    env = {item["name"] for item in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    ours = {name.removeprefix("GLM_OPERATOR_").lower() for name in env if name.startswith("GLM_OPERATOR_")}
    assert ours
    assert ours <= set(OperatorSettings.model_fields)


def test_the_crd_hook_is_gone_when_it_is_not_wanted() -> None:
    assert of_kind(rendered({"crd.upgrade": False}), "Job") == []


def test_no_template_holds_the_crd_so_that_no_release_owns_it() -> None:
    assert of_kind(rendered(), "CustomResourceDefinition") == []


@pytest.mark.parametrize(("release", "expected"), [("glm", "glm-glm-operator"), ("glm-operator", "glm-operator")])
def test_names_follow_the_release(release: str, expected: str) -> None:
    (deployment,) = of_kind(rendered(release=release), "Deployment")
    assert deployment["metadata"]["name"] == expected


@pytest.mark.parametrize(("namespaces", "flags"), [([], ""), (["a", "b"], " --namespace a")])
def test_the_commands_of_the_notes_can_be_pasted_and_reach_a_namespace_that_is_served(
    tmp_path: Path, namespaces: list[str], flags: str
) -> None:
    notes = rendered_notes(tmp_path, {"watchNamespaces": namespaces})
    commands = notes.partition("ships with:\n")[2].partition("\nIts Service")[0]
    kubectl, calls, applied = (tmp_path / name for name in ("kubectl", "calls", "applied.yaml"))
    kubectl.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n[ "$1" != apply ] || cat > {applied}\n')
    kubectl.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-eu"], input=commands, env=path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls.read_text().splitlines() == [
        f"apply{flags} -f -",
        f"wait{flags} --for=condition=Ready glmd/nano --timeout=180s",
        f"get{flags} glmd",
        f"glm keys create{flags} alice",
    ]
    assert read_planned(applied).layout.ranks == 2
