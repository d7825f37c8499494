"""The chart grants what rbac.py lists, no more and no less; and what nobody should ever grant is not in it."""

from pathlib import Path
from typing import Any

import yaml

from glm_operator.api.front import Front
from glm_operator.cluster.rbac import CERTIFICATE_RULE, RULES
from glm_operator.render.gateway import GatewayTarget, gateway_objects
from glm_operator.render.gateway_config import Served, in_cluster

RULES_FILE = Path(__file__).resolve().parents[2] / "charts/glm-operator/files/rules.yaml"

Grant = tuple[str, str, str]  # API group, resource, verb


def grants(rules: list[dict[str, Any]]) -> list[Grant]:
    return [(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]]


def granted() -> list[Grant]:
    return grants(yaml.safe_load(RULES_FILE.read_text()))


def granted_for_certificates() -> list[Grant]:
    """Return what is granted beside it, unless the values say that no certificates are made."""
    return grants(yaml.safe_load(RULES_FILE.with_name("certificate-rules.yaml").read_text()))


def test_of_secrets_are_granted_reading_by_name_and_writing_and_no_list_of_them() -> None:
    assert sorted(granted_for_certificates()) == [("", "secrets", verb) for verb in ("create", "get", "patch")]
    assert {verb for _, _, verb in granted_for_certificates()} == CERTIFICATE_RULE.verbs


def test_the_chart_grants_exactly_what_the_operator_lists() -> None:
    listed = [(rule.api_group, rule.resource, verb) for rule in RULES for verb in rule.verbs]
    assert sorted(granted()) == sorted(listed), "charts/glm-operator/files/rules.yaml is stale: run `make crds`"


def test_nothing_is_granted_twice() -> None:
    assert len(granted()) == len(set(granted()))


def test_there_are_no_wildcards() -> None:
    assert not [grant for grant in granted() if "*" in "".join(grant)]


def test_secrets_exec_and_permissions_of_the_whole_cluster_are_out_of_reach() -> None:
    forbidden = {
        "secrets",
        "pods/exec",
        "pods/attach",
        "serviceaccounts/token",
        "clusterroles",
        "clusterrolebindings",
    }
    assert not {resource for _, resource, _ in granted()} & forbidden


def test_a_role_can_give_nothing_that_the_operator_has_not() -> None:
    """The API server sees to that, as long as nobody has these verbs."""
    assert not {verb for _, _, verb in granted()} & {"escalate", "bind", "impersonate"}
    rules = [(rule.api_group, rule.resource, rule.verbs) for rule in RULES]
    served = Served("glm-nano", "nano", in_cluster("nano", "models"))
    gateway = GatewayTarget("nano", "models", "uid-1", Front(), [served], "image:1", "r")
    (role,) = [item for item in gateway_objects(gateway) if item["kind"] == "Role"]
    (given,) = role["rules"]
    (has,) = [verbs for group, resource, verbs in rules if (group, resource) == ("discovery.k8s.io", "endpointslices")]
    assert (given["apiGroups"], given["resources"]) == (["discovery.k8s.io"], ["endpointslices"])
    assert set(given["verbs"]) <= has


def test_the_spec_of_a_deployment_is_never_written() -> None:
    verbs = {verb for _, resource, verb in granted() if resource == "glmdeployments"}
    assert verbs <= {"get", "list", "watch"}
