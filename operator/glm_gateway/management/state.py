"""GET /state: which file a gateway runs by, and which groups it knows. Pure.

The operator waits for in_flight of a group that leaves to be 0, and finds here which groups answer without frames.
"""

from collections.abc import Iterable
from typing import Any

from glm_edge.version import VERSION
from glm_gateway.management.standing import Standing
from glm_gateway.models.model import Model

Json = dict[str, Any]


def state(
    models: Iterable[Model], standing: Standing, *, num_keys: int | None, num_running: int, num_cut: int = 0
) -> Json:
    """Return what is told. num_keys: that are good; None: keys are not what callers are known by, or none was read.

    num_cut: requests that ended in an error since the start, as the drain of their group was over before they were.
    """
    return {
        "version": VERSION,
        "config_digest": standing.digest,
        "config_fault": standing.fault,
        "keys": num_keys,
        "running": num_running,
        "cut": num_cut,
        "models": {model.name: {"groups": _groups(model)} for model in models},
    }


def _groups(model: Model) -> Json:
    """Return the groups by name. One that is gone is told as long as it has requests of this gateway."""
    in_flight = model.in_flight
    told = {
        group.name: _group(
            is_ready=group.is_ready,
            is_leaving=group.is_leaving,
            is_plain=model.is_plain(group.name),
            in_flight=in_flight.get(group.name, 0),
        )
        for group in model.directory.groups
    }
    for name, number in in_flight.items():
        told.setdefault(name, _group(is_ready=False, is_leaving=True, is_plain=False, in_flight=number))
    return told


def _group(*, is_ready: bool, is_leaving: bool, is_plain: bool, in_flight: int) -> Json:
    return {"ready": is_ready, "leaving": is_leaving, "plain": is_plain, "in_flight": in_flight}
