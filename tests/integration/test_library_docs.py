"""docs/library.md is what happens: its Python runs, its requests are requests; and so do the scripts of examples/."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from glm_worker.main import EXIT_UNREADABLE, OF_A_MODEL, OF_AN_ENGINE
from glm_worker.offline.batch.lines import checked
from glm_worker.offline.settings import NAMES
from glm_worker.settings import WorkerSettings
from integration.rank_pool import hold_torch_to_one_thread

hold_torch_to_one_thread()

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/library.md").read_text(encoding="utf-8")
CHECK_PAGE = (ROOT / "docs/check.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _no_zmq_threads_are_left() -> Iterator[None]:
    """Other tests fork, which is safe only beside no threads."""
    yield
    zmq.Context.instance().term()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_of_the_page_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    namespace: dict[str, object] = {}
    assert len(blocks("python")) >= 5
    for block in blocks("python"):
        exec(compile(block, "docs/library.md", "exec"), namespace)  # they are one program, in parts
        said.append(capsys.readouterr().out)
    first, schema, stream, many, errors = said
    assert first.startswith("17 + 25 = 42\n17 + 25: ones")
    assert json.loads(schema.splitlines()[0]).keys() == {"sum"}
    assert "8 + 5 = 13" in stream
    assert "99 + 4 = 103" in many
    assert errors == "temperature is 9; allowed: 0 to 2\n"


def test_the_request_of_the_page_is_one(tmp_path: Path) -> None:
    request, answer = blocks("json")
    (tmp_path / "requests.jsonl").write_text(request)
    assert checked(tmp_path / "requests.jsonl").num_requests == 1
    assert json.loads(answer.replace("…", "")).keys() == {"id", "custom_id", "response", "error"}


@pytest.mark.parametrize("script", ["engine.py", pytest.param("batch.py", marks=pytest.mark.long)])
def test_the_examples_run(tmp_path: Path, script: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "worker"), "GLM_THREADS_PER_RANK": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "+ 4 = " in ran.stdout


def test_flags_of_the_command_are_the_settings_of_an_engine() -> None:
    assert set(OF_AN_ENGINE) == set(NAMES)
    assert set(NAMES) <= WorkerSettings.model_fields.keys()
    assert set(OF_A_MODEL) <= set(NAMES)


def test_the_page_of_check_names_its_exit_codes_and_the_bounds() -> None:
    assert f"| {EXIT_UNREADABLE} | the checkpoint cannot be read" in CHECK_PAGE
    assert (ROOT / "worker/glm_worker/check/bounds.py").exists()
