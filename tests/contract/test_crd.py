"""The CRD is what the API server takes, and says what the Python types say."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from glm_operator.api.crd import crd
from glm_operator.api.reasons import REASONS
from glm_operator.api.spec import InvalidSpec, parse_deployment
from glm_operator.api.status import CONDITION_TYPES, GROUP_STATES
from unit.operator.operator_builders import a_body

ROOT = Path(__file__).resolve().parents[2]
VERSION = crd()["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]

# Fields of JSON schema that a structural schema of Kubernetes may use, as far as ours does.
ALLOWED = {
    "type", "description", "properties", "items", "additionalProperties", "required", "enum", "default", "pattern",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties", "format", "anyOf",
}  # fmt: skip


def walk(schema: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return every schema within one, by its path."""
    found = [(path, schema)]
    for name, field in schema.get("properties", {}).items():
        found += walk(field, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            found += walk(schema[name], f"{path}[]")
    return found


FIELDS = walk(SCHEMA)
STATUS = [(path, schema) for path, schema in FIELDS if path.startswith(".status")]


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema for a validator: unknown fields refused, as `kubectl apply` has the API server do."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-")}
    if "properties" in schema:
        result["properties"] = {name: strict(field) for name, field in schema["properties"].items()}
        result["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            result[name] = strict(schema[name])
    return result


def without_nulls(value: object) -> object:
    """Return a spec as the API server prunes it before it fills in defaults and validates."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return value


def is_valid(body: dict[str, Any]) -> bool:
    validator = jsonschema.Draft202012Validator(strict(SCHEMA["properties"]["spec"]))
    return bool(validator.is_valid(without_nulls(body["spec"])))


def test_the_file_in_the_tree_is_the_one_the_code_makes() -> None:
    text = (ROOT / "crds/glm-operator.io_glmdeployments.yaml").read_text()
    assert yaml.safe_load(text) == crd(), "run `make crds`"


@pytest.mark.parametrize(("path", "schema"), FIELDS, ids=[path or "root" for path, _ in FIELDS])
def test_the_schema_is_structural(path: str, schema: dict[str, Any]) -> None:
    assert {key for key in schema if not key.startswith("x-kubernetes-")} <= ALLOWED
    assert "type" in schema or schema.get("x-kubernetes-int-or-string")
    assert not ("properties" in schema and "additionalProperties" in schema)


@pytest.mark.parametrize("path", [path for path, _ in FIELDS if path.startswith((".spec.", ".status."))])
def test_every_field_is_described(path: str) -> None:
    schema = dict(FIELDS)[path]
    assert schema.get("description") or path.endswith("[]")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (".status.conditions[].type", CONDITION_TYPES),
        (".status.conditions[].reason", REASONS),
        (".status.groups[].state", GROUP_STATES),
    ],
)
def test_every_word_for_programs_is_explained_beside_it(path: str, words: Iterable[str]) -> None:
    description = dict(FIELDS)[path]["description"]
    assert all(f"{word}: " in description for word in words)


@pytest.mark.parametrize(("path", "schema"), STATUS, ids=[path for path, _ in STATUS])
def test_no_status_of_a_newer_operator_is_refused(path: str, schema: dict[str, Any]) -> None:
    bounds = {
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
    }
    assert not bounds & schema.keys()
    assert schema.get("required", []) == (["type"] if path == ".status.conditions[]" else []), "but the key of a map"


@pytest.mark.parametrize(
    "path", [path for path, schema in FIELDS if path.startswith(".spec") and schema.get("type") in ("string", "array")]
)
def test_what_users_write_is_bounded(path: str) -> None:
    # The API server estimates the cost of rules from these bounds, and etcd holds what passes.
    schema = dict(FIELDS)[path]
    assert {"maxLength", "maxItems", "enum"} & schema.keys()


def test_scale_counts_groups() -> None:
    assert VERSION["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def test_columns_point_at_fields_that_exist() -> None:
    paths = {path for path, _ in FIELDS} | {".metadata.creationTimestamp"}
    for column in VERSION["additionalPrinterColumns"]:
        assert column["jsonPath"].replace('[?(@.type=="Ready")]', "[]") in paths


RULES = [(path, rule) for path, schema in FIELDS for rule in schema.get("x-kubernetes-validations", [])]


@pytest.mark.parametrize(("path", "rule"), RULES, ids=[f"{path} {rule['rule'][:60]}" for path, rule in RULES])
def test_a_number_outside_its_bounds_is_told_by_the_schema_alone(path: str, rule: dict[str, Any]) -> None:
    # A minimum that is missed does not stop CEL: `8 % 0` would fail, and 1024 be written as 024.
    text = f"{rule['rule']} {rule.get('messageExpression', '')}"
    numbers = {*re.findall(r"% self\.([A-Za-z.]+)", text), *re.findall(r"\(self\.([A-Za-z.]+) >= 100 ", text)}
    for number in numbers:
        bounds = dict(FIELDS)[f"{path}.{number}"]
        guard = f"self.{number} < {bounds['minimum']} || self.{number} > {bounds['maximum']} ||"
        assert guard in rule["rule"]
        assert bounds["maximum"] <= 999


CASES: list[dict[str, Any]] = [
    {},
    {"replicas": 0},
    {"replicas": -1},
    {"replicas": 1001},
    {"replicas": "two"},
    {"replicas": "2"},
    {"replicas": True},
    {"replicas": 2.0},
    {"replicas": 2.5},
    {"replicas": None},
    {"unknown": 1},
    {"parallelism": None},
    {"parallelism": {"expert": "4"}},
    {"hardware": {}},
    {"hardware": {"device": "tpu"}},
    {"hardware": {"device": "cpu", "ranksPerPod": 0}},
    {"hardware": {"device": "cpu", "sharedMemory": "1GiB"}},
    {"hardware": {"device": None}},
    {"hardware": {"device": "cpu", "ranks_per_pod": 1}},
    {"hardware": {"device": "cpu", "sharedMemory": 1024}},
    {"hardware": {"device": "cpu", "sharedMemory": -1}},
    {"hardware": {"device": "cpu", "sharedMemory": "-1"}},
    {"hardware": {"device": "cpu", "sharedMemory": 1.5}},
    {"hardware": {"device": "cpu", "sharedMemory": 2.0}},
    {"hardware": {"device": "cpu", "sharedMemory": True}},
    {"hardware": {"device": "cpu", "nodeSelector": {"a": None}}},
    {"hardware": {"device": "cpu", "nodeSelector": {"a": 1}}},
    {"hardware": {"device": "cuda", "gpu": {}}, "parallelism": {"expert": 8}},
    {"hardware": {"device": "cpu", "tolerations": [{"operator": "Sometimes"}]}},
    {"hardware": {"device": "cpu", "tolerations": [{"operator": "Exists"}]}},
    {"hardware": {"device": "cpu", "tolerations": [None]}},
    {"hardware": {"device": "cpu", "resources": {"limits": {"memory": "lots"}}}},
    {"hardware": {"device": "cpu", "resources": {"limits": {"cpu": 0.5}}}},
    {"hardware": {"device": "cpu", "resources": {"limits": {"cpu": "0.5", "memory": None}}}},
    {"model": {"name": "GPT", "source": "file:///x"}},
    {"model": {"name": "custom", "source": "file:///x", "servedName": ""}},
    {"engine": {"image": "a b"}},
    {"engine": {"limits": {"maxNumSeqs": 0}}},
    {"engine": {"limits": {"startLimitSeconds": "60"}}},
    {"engine": {"limits": {"start_limit_seconds": 60}}},
    {"engine": {"imagePullSecrets": [{"name": "UPPER"}]}},
    *({"rollout": {"maxUnavailable": most}} for most in (1, "3", "25%", 0, 1001, "0", "0%", "101%", "1.5%", 1.5, None)),
    {"rollout": {"minReadySeconds": -1}},
    {"rollout": {"progressDeadlineSeconds": 0}},
    {"rollout": {"nodeLossSeconds": 0}},
    {"rollout": {"paused": "true"}},
    {"rollout": {"paused": True, "adopt": "Automatic"}},
    {"rollout": {"adopt": "automatic"}},
    {"rollout": None},
    *({"reasoning": {"autoThreshold": threshold}} for threshold in (0, 1, 0.25, 1.01, -0.1, "0.5", True, None)),
    *({"reasoning": {"maxThinkingTokens": tokens}} for tokens in (0, 1, 2.0, 2.5, 10_000_001)),
    *({"reasoning": {"effortTokens": tokens}} for tokens in ({}, {"low": 1}, {"low": 0}, {"most": 1}, 5)),
    *({"reasoning": {"default": mode}} for mode in ("Auto", "auto", None)),
    {"reasoning": {"visibility": "Hidden", "fields": "Both"}},
    {"reasoning": {"visibility": "Nobody"}},
    {"reasoning": {"auto_threshold": 1}},
    {"reasoning": None, "access": None},
    {"access": {"trustProxyHeaders": True}},
    {"access": {"trustProxyHeaders": "true"}},
]


@pytest.mark.parametrize("change", CASES, ids=json.dumps)
def test_schema_and_types_take_and_refuse_the_same(change: dict[str, Any]) -> None:
    body = a_body(**change)
    try:
        parse_deployment(body)
        is_parsed = True
    except InvalidSpec:
        is_parsed = False
    assert is_valid(body) is is_parsed
