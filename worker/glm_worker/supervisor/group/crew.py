"""Whom a generation takes."""

from dataclasses import dataclass

from glm_worker.supervisor.children.server_keeper import ServerKeeper
from glm_worker.supervisor.group.peers import Peers
from glm_worker.supervisor.group.pod import Pod


@dataclass(frozen=True)
class Crew:
    """The ranks of this pod, those of the others, and the server before them."""

    pod: Pod
    peers: Peers
    server: ServerKeeper
