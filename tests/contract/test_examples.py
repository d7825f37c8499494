"""Every example is a spec that the operator accepts."""

from pathlib import Path

import pytest

from glm_operator.cli.files import read_planned

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = [*sorted(FOLDER.glob("*.yaml")), FOLDER / "external/external.yaml"]


def test_there_are_examples() -> None:
    assert "nano.yaml" in {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_can_be_planned(path: Path) -> None:
    planned = read_planned(path)
    assert planned.layout.ranks == planned.deployment.spec.parallelism.expert


def test_nano_is_two_expert_parallel_ranks_in_one_pod() -> None:
    (nano,) = [read_planned(path) for path in EXAMPLES if path.name == "nano.yaml"]
    assert (nano.layout.expert, nano.layout.ranks_per_pod, nano.layout.pods_per_group) == (2, 2, 1)
