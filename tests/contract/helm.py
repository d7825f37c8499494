"""Finds helm and renders the chart with it: on PATH, or where `make cluster` keeps what it built."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from glm_cluster.paths import find_paths
from glm_cluster.programs import Programs

CHART = Path(__file__).resolve().parents[2] / "charts/glm-operator"


def find_helm() -> str | None:
    built = Programs(find_paths(os.environ))["helm"]  # of the present version: the cache may keep older ones
    return shutil.which("helm") or (str(built) if built.is_file() else None)


HELM = find_helm()
needs_helm = pytest.mark.skipif(HELM is None, reason="no helm: not on PATH, and `make cluster` has not built it yet")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=60)


def rendered(
    values: dict[str, Any] | None = None,
    *,
    release: str = "glm",
    chart: Path = CHART,
    api_versions: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Every object of the chart, hooks included. api_versions: what the cluster serves beyond Kubernetes's own."""
    sets = [f"--set-json={key}={json.dumps(value)}" for key, value in (values or {}).items()]
    served = [f"--api-versions={version}" for version in api_versions]
    done = helm(
        "template", release, str(chart), "--namespace", "glm-system", "--kube-version", "1.34.0", *sets, *served
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def rendered_notes(folder: Path, values: dict[str, Any] | None = None) -> str:
    """What is printed after an install. Helm renders it only for a cluster: here as a template of a copy in folder."""
    chart = shutil.copytree(CHART, folder / CHART.name)
    notes = (chart / "templates/NOTES.txt").read_text()
    template = '{{- define "notes" }}NOTES{{- end }}\nkind: Notes\ntext: {{ include "notes" . | toJson }}\n'
    (chart / "templates/notes.yaml").write_text(template.replace("NOTES", notes))
    (found,) = of_kind(rendered(values, chart=chart), "Notes")
    return str(found["text"])


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]


def pod_specs(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """kind/name -> pod spec of everything that runs."""
    return {f"{item['kind']}/{item['metadata']['name']}": pod["spec"] for item, pod in _pods(objects)}


def pod_metadata(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """kind -> metadata of the pods of everything that runs."""
    return {item["kind"]: pod["metadata"] for item, pod in _pods(objects)}


def _pods(objects: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every object that runs, and its pod or the template of it."""
    for item in objects:
        pod = item if item["kind"] == "Pod" else item.get("spec", {}).get("template")
        if pod is not None:
            yield item, pod
