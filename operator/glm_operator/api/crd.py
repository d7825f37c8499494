"""The CustomResourceDefinition, generated from spec.py and status.py: `python -m glm_operator.api.crd > crds/….yaml`.

Pure but for the printing. Turns pydantic's JSON schema into the structural OpenAPI v3 schema of Kubernetes: references
inlined, optional fields left out instead of null, no additionalProperties beside properties (unknowns are pruned).
"""

import sys
from typing import Any

import yaml
from pydantic import BaseModel

from glm_operator import names
from glm_operator.api import rules
from glm_operator.api.spec import GLMDeploymentSpec
from glm_operator.api.status import GLMDeploymentStatus

Schema = dict[str, Any]

HEADER = "# Generated from operator/glm_operator/api/spec.py by `make crds`. Edit there.\n"
_KEPT = (
    "description",
    "type",
    "enum",
    "default",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
)

COLUMNS: list[dict[str, Any]] = [
    {"name": "Model", "type": "string", "jsonPath": ".spec.model.name"},
    {"name": "Ready", "type": "string", "jsonPath": ".status.ready", "description": "Ready groups of wanted ones."},
    {
        "name": "Up-to-date",
        "type": "string",
        "jsonPath": ".status.upToDate",
        "description": "Groups at the newest revision of wanted ones.",
    },
    {"name": "GPUs", "type": "integer", "jsonPath": ".status.gpus"},
    {
        "name": "TTFT-P95",
        "type": "string",
        "jsonPath": ".status.latency.ttftP95",
        "description": "Time to the first token, of the last five minutes.",
    },
    {
        "name": "ITL-P95",
        "type": "string",
        "jsonPath": ".status.latency.itlP95",
        "description": "Time between two tokens, of the last five minutes.",
    },
    {
        "name": "SLO",
        "type": "string",
        "jsonPath": ".status.slo.attainment",
        "description": "Share of requests as fast as promised, of the class that fares worst.",
    },
    {"name": "Reason", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "TTFA-P95", "type": "string", "jsonPath": ".status.latency.ttfaP95", "priority": 1},
    {"name": "Budget", "type": "string", "jsonPath": ".status.slo.budgetLeft", "priority": 1},
    {"name": "Last-scale", "type": "string", "jsonPath": ".status.scaling.lastScale", "priority": 1},
    {"name": "Revision", "type": "string", "jsonPath": ".status.revision", "priority": 1},
    {"name": "Endpoint", "type": "string", "jsonPath": ".status.endpoint", "priority": 1},
]


def crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of GLMDeployment."""
    schema = {
        "type": "object",
        "description": "A GLM model served by replica groups of sharded, expert-parallel workers.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(GLMDeploymentSpec),
            "status": without_bounds(structural_schema(GLMDeploymentStatus)),
        },
        "x-kubernetes-validations": rules.NAME_RULES,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["glmd"],
                "categories": ["all", "glm"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": COLUMNS,
                }
            ],
        },
    }


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a pydantic model, by its aliases."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}))


_BOUNDS = ("enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "required")


def without_bounds(schema: Schema) -> Schema:
    """Return a schema that refuses no value of its types: an older CRD must not freeze a newer operator's status."""
    loose = {key: value for key, value in schema.items() if key not in _BOUNDS}
    if "properties" in loose:
        loose["properties"] = {key: without_bounds(value) for key, value in loose["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in loose:
            loose[key] = without_bounds(loose[key])
    if "x-kubernetes-list-map-keys" in loose:
        loose["items"]["required"] = loose["x-kubernetes-list-map-keys"]
    return loose


def _structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    schema = _resolved(schema, definitions)
    result: Schema = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
    result |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if "x-kubernetes-int-or-string" in schema:
        result["anyOf"] = schema["anyOf"]
    if schema.get("format") == "date-time":
        result["format"] = "date-time"
    if isinstance(result.get("default"), dict):
        result["default"] = {}  # the defaults of its fields are filled in by the API server
    if "properties" in schema:
        result["properties"] = {key: _structural(value, definitions) for key, value in schema["properties"].items()}
    else:
        # A map. Kubernetes knows no pattern for keys; parse_deployment checks those.
        values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        if values[0]:
            result["additionalProperties"] = _structural(values[0], definitions)
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions)
    return result


def _resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return the schema with its reference followed and `or null` taken off; words beside either of them win."""
    beside = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions) | beside
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        return _resolved(choices[0], definitions) | beside
    return schema


def main() -> None:
    """Write the CRD to standard output, as YAML."""
    sys.stdout.write(HEADER + yaml.safe_dump(crd(), sort_keys=False, width=120))


if __name__ == "__main__":
    main()
