"""The file in which gateways find the groups of a deployment. Pure."""

import json
from collections.abc import Collection, Iterable

from glm_operator import names
from glm_operator.local.state import PodRecord


def groups_file(
    leaders: Iterable[PodRecord], *, ready: Collection[str], leaving: Collection[str], deployment: str
) -> bytes:
    """Return the file. leaders: first pods of groups. ready: groups that serve. leaving: those that get nothing new."""
    groups = [
        {
            "name": leader.group,
            "host": leader.address,
            "port": names.HTTP_PORT,
            "management_port": names.MANAGEMENT_PORT,
            "deployment": deployment,
            "ready": leader.group in ready,
            "leaving": leader.group in leaving,
        }
        for leader in leaders
    ]
    return json.dumps({"groups": groups}, indent=2).encode()
