"""What the zygote has when it forks ranks."""

import os
import subprocess
import sys

from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.environment import zygote_environment

PROGRAM = """
import sys
from pathlib import Path
from glm_worker.supervisor.supervisor import RANK_TARGET
from glm_worker.supervisor.children.zygote import ONLY_ON_GPUS, load_target

def num_threads():
    return len(list(Path("/proc/self/task").iterdir()))

load_target(RANK_TARGET, "cpu")
unwanted = {"transformers", "sympy", "torch._dynamo", "torch._inductor", ONLY_ON_GPUS}
print(num_threads(), "xgrammar" in sys.modules, sorted(unwanted & sys.modules.keys()))
load_target(RANK_TARGET, "cuda")
print(num_threads(), ONLY_ON_GPUS in sys.modules, "transformers" in sys.modules)
import transformers
print(transformers.PreTrainedTokenizerBase.__name__)
"""


def test_ranks_are_forked_from_one_thread_with_what_they_use_and_nothing_dear_that_they_do_not() -> None:
    """And who wants transformers afterwards, as tests do, gets the real one."""
    environment = zygote_environment(WorkerSettings(model="builtin://glm-nano"), os.environ)
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1 True []", "1 True False", "PreTrainedTokenizerBase"]
