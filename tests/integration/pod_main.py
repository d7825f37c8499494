"""One pod as a process, with the rank and server functions of the caller's choice.

python -m integration.pod_main RANK_TARGET SERVER_TARGET, settings in the environment.
"""

import sys

from glm_worker.settings import read_settings
from glm_worker.supervisor.supervisor import supervise

if __name__ == "__main__":
    sys.exit(supervise(read_settings(), rank_target=sys.argv[1], server_target=sys.argv[2]))
