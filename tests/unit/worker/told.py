"""What the events of a stream tell, as their client reads it."""

from collections.abc import Iterable
from typing import Any

import msgspec

from glm_worker.server.flights.replies import Event


def told(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Return the JSON of those events that are no mark."""
    data = [event.line.removeprefix(b"data: ") for event in events if not isinstance(event.data, str)]
    return [msgspec.json.decode(each) for each in data]
