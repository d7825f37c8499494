"""locks/ holds what pyproject.toml asks for, and the images have the versions that are tested."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def canonical(name: str) -> str:
    """Return a name as locks spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def asked_for(requirements: list[str]) -> set[str]:
    names = {canonical(re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]) for requirement in requirements}
    return names - {PROJECT["name"]}


def locked(image: str) -> dict[str, set[str]]:
    """Return the versions of every package of a lock: more than one where they depend on the platform."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", _text(image), re.MULTILINE):
        found.setdefault(canonical(name), set()).add(version)
    return found


def _text(image: str) -> str:
    return (ROOT / f"locks/{image}.txt").read_text()


@pytest.mark.parametrize("image", ["operator", "worker"])
def test_an_image_has_every_dependency_in_the_version_that_is_tested(image: str) -> None:
    versions, tested = locked(image), locked("dev")
    assert asked_for(PROJECT["dependencies"] + EXTRAS[image]) <= set(versions)
    assert {name: found for name, found in versions.items() if not found <= tested.get(name, set())} == {}


def test_development_has_every_dependency_of_every_extra() -> None:
    everything = [requirement for requirements in EXTRAS.values() for requirement in requirements]
    assert asked_for(PROJECT["dependencies"] + everything) <= set(locked("dev"))


def test_every_locked_package_has_a_hash() -> None:
    for lock in sorted((ROOT / "locks").glob("*.txt")):
        requirements = [each for each in re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE) if "==" in each]
        assert requirements, lock
        assert [each.split()[0] for each in requirements if "--hash=sha256:" not in each] == [], lock
