"""docs/http.md names the clients of other projects with the versions that the tests run them in."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r"^\| `([^`]+)`(?: \((?:Python|npm)\))? \| (\d[\d.]*) \|", (ROOT / "docs/http.md").read_text(), re.MULTILINE
)


def locked(package: str) -> set[str]:
    """Return the versions of a package in the locks of the environments in which clients run."""
    versions = set()
    for lock in ("dev", "clients"):
        text = (ROOT / f"locks/{lock}.txt").read_text()
        versions |= set(re.findall(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE))
    for folder in ("node", "agents"):
        packages = json.loads((ROOT / f"tests/clients/{folder}/package-lock.json").read_text())["packages"]
        if found := packages.get(f"node_modules/{package}"):
            versions.add(found["version"])
    return versions


def test_the_page_has_a_row_for_every_client() -> None:
    clients = {"openai", "anthropic", "litellm", "langchain-openai", "@anthropic-ai/sdk"}
    assert {name for name, _ in ROWS} == clients | {"opencode-ai", "@qwen-code/qwen-code"}


@pytest.mark.parametrize(("client", "version"), ROWS)
def test_the_version_is_the_one_that_is_locked(client: str, version: str) -> None:
    assert version in locked(client)
