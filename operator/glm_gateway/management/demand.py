"""GET /demand: who waits for a group, and since when nobody asks; once, or as a stream of lines.

The operator holds one stream to each gateway: a line that says that requests wait lifts a deployment from zero at once.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glm_gateway.management.pulse import Pulse
from glm_gateway.models.model import Model

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """In seconds."""

    least_s: float = 0.1  # between two lines, but for one that says that somebody waits where nobody did
    most_s: float = 2.0  # a stream that is silent for longer is broken


def demand(models: Iterable[Model], now: float, began_s: float) -> Json:
    """Return what is told.

    held: requests that wait here, for a group that is not there or for their turn. held_tokens: of their prompts, that
    no group is known to have computed, as the gateway expects them.
    idle_s: since the last request of the model came or ended; 0.0 while there is one; None: none came since up_s.
    running: requests that groups of the model have. deployment: whose groups they are; "": the file does not say.
    """
    return {"models": {model.name: _of(model, now) for model in models}, "up_s": round(now - began_s, 3)}


def _of(model: Model, now: float) -> Json:
    waits, running = model.demand, sum(model.in_flight.values())
    idle_s = None if model.active_s is None else round(now - model.active_s, 3)
    return {
        "held": waits.num_held,
        "held_tokens": waits.num_tokens,
        "oldest_s": round(waits.oldest_s, 3),
        "idle_s": 0.0 if running or waits.num_held else idle_s,
        "running": running,
        "deployment": model.deployment,
    }


@dataclass
class Demands:
    """models: that run now. pulse: beats when something of them changes. began_s: when the gateway did."""

    models: Callable[[], Iterable[Model]]
    pulse: Pulse
    began_s: float
    rhythm: Rhythm = field(default_factory=Rhythm)

    def page(self) -> bytes:
        return self._line(self._now())

    async def lines(self, least_s: float = 0.0) -> AsyncGenerator[bytes, None]:
        """Yield a line now, one soon after each change, and one when nothing changes; without end.

        least_s: between two lines, for who needs no more, as who listens to many; never less than the rhythm allows.
        """
        least_s = min(max(least_s, self.rhythm.least_s), max(self.rhythm.most_s, self.rhythm.least_s))
        loop = asyncio.get_running_loop()
        while True:
            beat, told, told_s = self.pulse.count, self._now(), loop.time()
            yield self._line(told)
            while (now := loop.time()) < told_s + self.rhythm.most_s:
                is_new = beat != self.pulse.count
                if is_new and (now >= told_s + least_s or _is_awaited(told["models"], self._now())):
                    break
                due_s = told_s + (least_s if is_new else self.rhythm.most_s)
                await self.pulse.wait(due_s - now)

    def _now(self) -> Json:
        return demand(self.models(), asyncio.get_running_loop().time(), self.began_s)

    @staticmethod
    def _line(told: Json) -> bytes:
        return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def _is_awaited(before: Mapping[str, Json], now: Json) -> bool:
    """Tell whether somebody waits for a model that nobody waited for."""
    return any(of["held"] and not before.get(name, {}).get("held") for name, of in now["models"].items())
