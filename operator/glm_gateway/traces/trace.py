"""What happened to one request, moment by moment: where it waited, who wrote it, what it used. Never a text. Pure."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MAX_EVENTS = 64
"""Of one request; of more the first ones stay, and how many are missing is told."""


@dataclass
class Trace:
    """owner: the name of the key that asked. arrived_at: seconds since 1970. began_s: the same, by a clock that only
    goes forward. ended_s: by that clock; None: it goes on.
    """

    request_id: str
    owner: str
    arrived_at: float
    began_s: float
    path: str
    model: str | None = None
    ended_s: float | None = None
    num_missing: int = 0
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    def note(self, what: str, now_s: float, **facts: Any) -> None:
        """Add what happened. facts: that JSON can hold; those that are None are left out."""
        if len(self.events) >= MAX_EVENTS:
            self.num_missing += 1
            return
        self.events.append((now_s, what, {name: value for name, value in facts.items() if value is not None}))

    def end(self, now_s: float, **facts: Any) -> None:
        """Add how it ended, once; there is always room for it."""
        self.ended_s = now_s
        self.events.append((now_s, "ended", {name: value for name, value in facts.items() if value is not None}))

    def told(self) -> dict[str, Any]:
        """Return the trace as its owner reads it. at_s: seconds since the request came."""
        events = [
            {"at_s": round(at_s - self.began_s, 6), "what": what, **facts}
            for at_s, what, facts in sorted(self.events, key=lambda event: event[0])
        ]
        return {
            "object": "trace",
            "id": self.request_id,
            "path": self.path,
            "model": self.model,
            "arrived": datetime.fromtimestamp(self.arrived_at, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "is_over": self.ended_s is not None,
            "events": [{"at_s": 0.0, "what": "arrived"}, *events],
            **({"events_missing": self.num_missing} if self.num_missing else {}),
        }
