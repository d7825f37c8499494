"""Local mode in a test: nothing of it is left at the end, whatever the test did."""

from glm_operator.local import controller
from glm_operator.local.down import stop_pods
from glm_operator.local.state import StateFolder


def stop_all(folder: StateFolder) -> None:
    """Kill what runs of every deployment, and forget it."""
    for state in folder.deployments():
        controller.stop(folder, state)
        if state.gateway is not None:
            stop_pods([state.gateway], deadline_s=0)
        stop_pods(state.pods, deadline_s=0)
        folder.remove(state)
