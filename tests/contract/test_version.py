"""One version everywhere: package, chart, and what workers say of themselves in images without metadata."""

import tomllib
from pathlib import Path

import yaml

from glm_edge.version import VERSION

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_and_the_chart_have_the_version_that_workers_tell() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((ROOT / "charts/glm-operator/Chart.yaml").read_text())
    assert project["version"] == VERSION == chart["appVersion"]


def test_nothing_that_runs_in_an_image_asks_for_metadata_of_the_package() -> None:
    sources = [*(ROOT / "worker").rglob("glm_*/**/*.py"), *(ROOT / "operator").rglob("glm_*/**/*.py")]
    assert sources
    asking = [path for path in sources if "importlib.metadata" in path.read_text()]
    # Not run there but where the library is built, and what it asks for is the compiler's version
    assert asking == [ROOT / "worker/glm_worker/kernels/cpu/build.py"]
