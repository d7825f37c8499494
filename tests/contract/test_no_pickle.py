"""Nothing that runs code out of data: no pickle on a socket or in a file, no code of a checkpoint, no eval."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Of torch's collectives those for objects pickle; torch.load and numpy.load may; RPC does.
FORBIDDEN = re.compile(
    r"\b(?:import|from) (?:pickle|cPickle|dill|cloudpickle|joblib|shelve|marshal)\b|recv_pyobj|send_pyobj|torch\.load\b"
    r"|_object_list\b|_gather_object\b|gather_object\(|distributed\.rpc|trust_remote_code\s*=\s*True|allow_pickle\s*=\s*True"
    r"|(?<![\w.])(?:eval|exec)\(|yaml\.(?:unsafe_)?load\(|multiprocessing\.connection"
)


@pytest.mark.parametrize("package", ["worker/glm_worker", "operator/glm_operator"])
def test_no_module_that_ships_reads_pickles_or_runs_what_it_reads(package: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (ROOT / package).rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    }
    assert found == set()


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "weights = torch.load(path)",
        "dist.broadcast_object_list(found)",
        "dist.all_gather_object(all, one)",
        "message = socket.recv_pyobj()",
        "value = eval(text)",
    ],
)
def test_what_is_forbidden_is_found(line: str) -> None:
    assert FORBIDDEN.search(line)
