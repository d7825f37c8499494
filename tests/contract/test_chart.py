"""What can be said of the chart without Helm: its copies, its values, its schema."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from glm_operator import names
from glm_operator.api.crd import HEADER, crd

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/glm-operator"
CRD_FILE = "glm-operator.io_glmdeployments.yaml"


def read(path: str) -> Any:
    return yaml.safe_load((CHART / path).read_text())


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def key_lines(text: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every key that values.yaml documents: all but what lies inside `resources`."""
    in_resources = False
    for number, line in enumerate(text.splitlines()):
        if re.match(r"^\S", line):
            in_resources = line.startswith("resources:")
        if re.match(r"^\s*[A-Za-z]+:", line) and (not in_resources or line.startswith("resources:")):
            yield number, line


def objects_in(node: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema that lists properties."""
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for value in node.values():
            yield from objects_in(value)


@pytest.mark.parametrize("copy", [ROOT / "crds" / CRD_FILE, CHART / "crds" / CRD_FILE], ids=["crds", "chart"])
def test_the_crd_in_the_tree_is_the_one_that_the_code_defines(copy: Path) -> None:
    stale = f"{copy.relative_to(ROOT)} is stale: run `make crds`"
    assert copy.read_text() == HEADER + yaml.safe_dump(crd(), sort_keys=False, width=120), stale


def test_the_default_values_satisfy_the_schema() -> None:
    jsonschema.validate(read("values.yaml"), schema())


def test_every_value_has_a_place_in_the_schema_and_the_other_way_round() -> None:
    assert set(read("values.yaml")) == set(schema()["properties"]) - {"global"}


def test_the_schema_refuses_unknown_keys_at_every_level() -> None:
    parts = list(objects_in(schema()))
    assert len(parts) > 4
    assert all(part["additionalProperties"] is False for part in parts)


def test_every_default_is_a_key_that_the_schema_knows_at_every_level() -> None:
    def keys(values: Any, part: dict[str, Any]) -> list[str]:
        known = part.get("properties", {})
        wrong = [key for key in known if key not in values]
        return [*wrong, *(name for key in known if key in values for name in keys(values[key], known[key]))]

    assert [key for key in keys(read("values.yaml"), schema()) if key != "global"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": {"tga": "1"}},
        {"replicas": 2},
        {"logLevel": "loud"},
        {"watchNamespaces": ["Not_A_Namespace"]},
        {"image": {"digest": "sha256:12"}},
        {"prometheus": {"url": "prometheus:9090"}},
        {"prometheus": {"caSecret": "ca"}},
        {"gpuBudgets": {"chat": "64"}},
        {"gpuBudgets": {"Not_A_Namespace": 1}},
        {"monitoring": {"podMonitor": {"enabled": "yes"}}},
        {"monitoring": {"podMonitor": {"interval": "5"}}},
        {"monitoring": {"dashboards": {"folder": "GLM"}}},
    ],
)
def test_the_schema_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())


def test_every_key_of_values_has_a_comment_line_before_it() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare = [line for number, line in key_lines("\n".join(lines)) if not lines[number - 1].lstrip().startswith("#")]
    parents = [line for line in bare if line in ("crd:", "serviceAccount:", "  image:")]  # their keys say it
    assert bare == parents


def test_the_chart_needs_the_kubernetes_that_labels_pods_with_their_index() -> None:
    assert read("Chart.yaml")["kubeVersion"] == ">=1.28.0-0"


def test_the_hook_may_touch_only_our_crd() -> None:
    text = (CHART / "templates/crd-hook.yaml").read_text()
    assert re.findall(r"resourceNames: \[(.*)\]", text) == [f"{names.PLURAL}.{names.GROUP}"]
    assert re.findall(r"verbs: \[(.*)\]", text) == ["get, patch"]


def test_both_values_that_matter_for_cluster_wide_permissions_name_each_other() -> None:
    comments = (CHART / "values.yaml").read_text()
    about_namespaces, rest = comments.split("\nwatchNamespaces:")
    assert "crd.upgrade: false" in about_namespaces.rpartition("\n\n")[2]
    assert "watchNamespaces" in rest.partition("  upgrade:")[0]


def test_the_default_worker_image_is_the_one_the_operator_falls_back_to() -> None:
    image, version = read("values.yaml")["worker"]["image"], read("Chart.yaml")["appVersion"]
    assert f"{image['repository']}:{image['tag'] or version}" == names.DEFAULT_WORKER_IMAGE
