"""The real server with a small bound on its connections."""

from glm_edge.http import protocol
from glm_worker.server import main
from glm_worker.settings import WorkerSettings

MOST = 5


def run_server(settings: WorkerSettings, control_fd: int) -> None:
    """Serve as ever."""
    protocol.MAX_CONNECTIONS = MOST
    main.run_server(settings, control_fd)
