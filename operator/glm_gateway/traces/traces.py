"""The traces that are kept: so many, for so long, each for the key that owns it. In memory of this replica alone."""

from collections import OrderedDict
from dataclasses import dataclass, field

from glm_gateway.traces.config import TraceConfig
from glm_gateway.traces.trace import Trace

_Id = tuple[str, str]  # the owner, and the id of a request


@dataclass
class Traces:
    """Those of requests under way, and those of which one may still ask. Pure: time is an argument.

    Where more requests run than may be kept, the further ones are not traced. An id that a key uses again means the
    later request.
    """

    config: TraceConfig
    _running: dict[int, Trace] = field(default_factory=dict)  # by identity: an id may run twice
    _ended: OrderedDict[_Id, Trace] = field(default_factory=OrderedDict)  # who ended first goes first

    def begin(self, trace: Trace, now_s: float) -> bool:
        """Keep a trace from now on; return whether there is room for it."""
        self._forget(now_s)
        if len(self._running) >= self.config.max_requests:
            return False
        self._running[id(trace)] = trace
        while len(self._running) + len(self._ended) > self.config.max_requests:
            self._ended.popitem(last=False)
        return True

    def end(self, trace: Trace) -> None:
        """Keep a trace that has ended for as long as such are kept."""
        if self._running.pop(id(trace), None) is None:
            return
        self._ended[trace.owner, trace.request_id] = trace
        self._ended.move_to_end((trace.owner, trace.request_id))

    def find(self, owner: str, request_id: str, now_s: float) -> Trace | None:
        """Return the trace of a key's request; None: there is none, it is another key's, or it is over for long."""
        self._forget(now_s)
        running = [trace for trace in self._running.values() if (trace.owner, trace.request_id) == (owner, request_id)]
        return running[-1] if running else self._ended.get((owner, request_id))

    def _forget(self, now_s: float) -> None:
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if oldest.ended_s is not None and now_s - oldest.ended_s < self.config.keep_seconds:
                return
            self._ended.popitem(last=False)
