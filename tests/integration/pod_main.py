"""One pod as a process, with the rank and server functions of the caller's choice.

python -m integration.pod_main PARENT_PID RANK_TARGET SERVER_TARGET, settings in the environment. It dies with its
parent: a test run that is killed leaves nothing, though each pod has a session of its own.
"""

import sys

from glm_worker.settings import read_settings
from glm_worker.supervisor.children.process import die_with_parent
from glm_worker.supervisor.supervisor import supervise

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    sys.exit(supervise(read_settings(), rank_target=sys.argv[2], server_target=sys.argv[3]))
