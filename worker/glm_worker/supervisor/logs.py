"""Log lines of every process of a pod: one line each, to stderr, with the group and the pod in key=value form."""

import logging
import sys

from glm_edge.logs import Discreet as Edges
from glm_edge.logs import OneLine
from glm_worker.errors import GlmWorkerError
from glm_worker.settings import WorkerSettings


class Discreet(Edges):
    """Tells of errors what our own and the system's say."""

    tells = (GlmWorkerError, OSError)


def configure_logging(settings: WorkerSettings, process: str) -> None:
    """Send everything from INFO up to stderr. process: supervisor, zygote, rank-3, server."""
    handler = logging.StreamHandler(sys.stderr)
    where = f"group={settings.group} pod={settings.pod_index} process={process}".replace("%", "%%")
    formatter = Discreet if process == "server" else OneLine  # the only one that meets texts
    handler.setFormatter(formatter(f"%(asctime)s %(levelname)s {where} %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # it greets as a program of its own, which it is not
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # a line a probe would drown the rest
