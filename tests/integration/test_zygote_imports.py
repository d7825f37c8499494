"""What the zygote has when it forks ranks."""

import os
import subprocess
import sys

from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.environment import zygote_environment

PROGRAM = """
import sys
from pathlib import Path
import glm_worker.engine.rank
threads = len(list(Path("/proc/self/task").iterdir()))
print(threads, "xgrammar" in sys.modules, [name for name in sys.modules if name.split(".")[0] == "transformers"])
import transformers
print(transformers.PreTrainedTokenizerBase.__name__)
"""


def test_ranks_are_forked_with_xgrammar_without_transformers_and_from_one_thread() -> None:
    """And who wants transformers afterwards, as tests do, gets the real one."""
    environment = zygote_environment(WorkerSettings(model="builtin://glm-nano"), os.environ)
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 True []", "PreTrainedTokenizerBase"]
