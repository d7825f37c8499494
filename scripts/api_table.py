"""The fields of GLMDeployment as a table for docs/api.md, from the same schema that the API server checks."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

HEADER = """# GLMDeployment

Generated from `operator/glm_operator/api/spec.py` by `make crds`. Edit there.

`apiVersion: glm-operator.io/v1alpha1`, `kind: GLMDeployment`, short name `glmd`. Fields in **bold** are required.
Whoever wants to see what a spec becomes asks `glm plan -f FILE`; what cannot be is refused, with the value and what is
allowed.

"""


def api_markdown(crd: Schema) -> str:
    """The whole page."""
    parts = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return HEADER + _table("spec", parts["spec"]) + "\n" + _table("status", parts["status"])


def _table(name: str, schema: Schema) -> str:
    rows = "".join(
        f"| {path} | {_type(field)} | {_default(field)} | {_cell(field.get('description', ''))} |\n"
        for path, field in _fields(schema, name)
    )
    return f"## {name}\n\n| Field | Type | Default | Meaning |\n|---|---|---|---|\n{rows}"


def _fields(schema: Schema, prefix: str) -> Iterator[tuple[str, Schema]]:
    """Path and schema of every field below, depth first."""
    if schema.get("type") == "array":
        yield from _fields(schema["items"], f"{prefix}[]")
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}.{name}"
        yield (f"**`{path}`**" if name in schema.get("required", []) else f"`{path}`"), field
        yield from _fields(field, path)


def _type(field: Schema) -> str:
    if "enum" in field:
        return _cell(" \\| ".join(f"`{value}`" for value in field["enum"]))
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    bounds = f" {field['minimum']} to {field['maximum']}" if {"minimum", "maximum"} <= set(field) else ""
    return str(field.get("type", "any")) + bounds


def _default(field: Schema) -> str:
    default = field.get("default")
    return "" if default in (None, {}) else f"`{default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|")
