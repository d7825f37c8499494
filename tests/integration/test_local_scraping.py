"""Prometheus beside `glm local`, connected by the commands and the configuration that docs/metrics.md has."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from glm_operator.local.state import StateFolder
from integration.local_world import stop_all
from integration.prometheus_process import DEADLINE_S, prometheus_process

ROOT = Path(__file__).resolve().parents[2]
UP_S = 300.0  # a group that imports torch, on a busy machine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where Prometheus has its files; what `up` started is gone at the end."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # glm, as a shell finds it
    (tmp_path / "prometheus").mkdir()
    yield tmp_path / "prometheus"
    stop_all(StateFolder.of_user())


def blocks(language: str) -> list[str]:
    """Return the blocks of the section about a static file."""
    page = (ROOT / "docs/metrics.md").read_text()
    section = page.partition("### With a static file, in local mode\n")[2].partition("\n## ")[0]
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return found


def run(command: str, folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-ec", command], cwd=folder, capture_output=True, text=True, timeout=UP_S, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_prometheus_beside_local_mode_has_the_series_of_each_group(folder: Path) -> None:
    manifest = yaml.safe_load((ROOT / "examples/nano.yaml").read_text())
    manifest["spec"] |= {"replicas": 2, "parallelism": {"expert": 1}, "hardware": {"device": "cpu", "ranksPerPod": 1}}
    (folder / "nano.yaml").write_text(yaml.safe_dump(manifest))
    run("glm local up -f nano.yaml", folder)
    (write_targets,), (config,) = blocks("sh"), blocks("yaml")
    run(write_targets, folder)
    with prometheus_process(folder, yaml.safe_load(config)["scrape_configs"]) as prometheus:
        deadline_s, found = time.monotonic() + DEADLINE_S, list[dict[str, str]]()
        while len(found) < 2:
            assert time.monotonic() < deadline_s, f"Prometheus has {found}; {prometheus.log()}"
            query = {"query": "glm_group_serving_timestamp_seconds > 0"}
            answer = (
                httpx.get(f"{prometheus.url}/api/v1/query", params=query, trust_env=False).raise_for_status().json()
            )
            found = [series["metric"] for series in answer["data"]["result"]]
            time.sleep(0.2)
    names = {(each["namespace"], each["deployment"], each["group"]) for each in found}
    assert names == {("default", "nano", "nano-g0"), ("default", "nano", "nano-g1")}
    assert all(each["revision"] for each in found)
    assert all("exported_namespace" not in each for each in found)
    run("glm local down", folder)
