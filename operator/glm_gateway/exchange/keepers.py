"""Which group keeps a response: the one that its id names, or the one that went on with it after a loss. Pure."""

from collections import OrderedDict

MAX_MOVED = 10_000
"""Responses that are known to be elsewhere; the one that moved first is forgotten first. Groups keep theirs an hour."""


class Keepers:
    """What this gateway has seen; another one goes by the id."""

    def __init__(self, most: int = MAX_MOVED) -> None:
        self._most = most
        self._moved: OrderedDict[str, str] = OrderedDict()

    def note(self, response_id: str, group: str) -> None:
        """Note that a group has finished a response."""
        if _named(response_id) == group:
            self._moved.pop(response_id, None)
            return
        self._moved[response_id] = group
        self._moved.move_to_end(response_id)
        while len(self._moved) > self._most:
            self._moved.popitem(last=False)

    def of(self, response_id: str) -> str:
        """Return the group that has it, if any has."""
        return self._moved.get(response_id) or _named(response_id)


def _named(response_id: str) -> str:
    """Return the group that an id names: resp_<group>_<digits>."""
    return response_id.removeprefix("resp_").rpartition("_")[0]
