"""What is written down of one request while it runs: its trace, and its line in the audit log. Both may be off."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from glm_gateway.access.decide import Caller
from glm_gateway.audit.log import AuditLog
from glm_gateway.audit.requests import request_facts
from glm_gateway.limits.tokens import Usage
from glm_gateway.proxy.relay.placing import Placing
from glm_gateway.proxy.relay.relay import Relay
from glm_gateway.proxy.relay.result import Result
from glm_gateway.traces.placing import TracedPlacing
from glm_gateway.traces.trace import Trace
from glm_gateway.traces.traces import Traces
from glm_gateway.usage.entry import Entry


@dataclass
class Record:
    """audit, traces: None: off. clock: of the loop; began_s: by it. Call `end` once, however the request ended.

    is_kept: whether the request is one that a group answers; of others nothing is written down. status: of the reply;
    None: it has none yet. revision: of the group that answered.
    """

    audit: AuditLog | None
    traces: Traces | None
    request_id: str
    path: str
    began_s: float
    clock: Callable[[], float]
    is_kept: bool = False
    status: int | None = None
    revision: str | None = None
    entry: Entry | None = None
    _key: str | None = None
    _model: str | None = None
    _mode: str | None = None
    _result: Result | None = None
    _trace: Trace | None = None

    def known(self, caller: Caller) -> None:
        """Note who asks."""
        self._key = caller.name
        if self.traces is None or not self.is_kept:
            return
        now_s = self.clock()
        arrived_at = time.time() - (now_s - self.began_s)
        trace = Trace(self.request_id, caller.name, arrived_at, self.began_s, self.path)
        self._trace = trace if self.traces.begin(trace, now_s) else None

    def asked(self, model: str, *, mode: str | None) -> None:
        """Note which model is asked for, and in which mode of thinking."""
        self._model, self._mode = model, mode
        if self._trace is not None:
            self._trace.model = model

    def reserved(self, usage: Usage) -> None:
        """Note what the request may take."""
        if self._trace is not None:
            self._trace.note(
                "reserved", self.clock(), prompt_tokens=usage.prompt, new_tokens=usage.total - usage.prompt
            )

    def placing(self, inner: Placing) -> Placing:
        """Return what places the request, and writes down where."""
        return inner if self._trace is None else TracedPlacing(inner, self._trace)

    def relays(self, relay: Relay) -> None:
        """Note who passes the reply on."""
        self._result = relay.result
        if isinstance(relay.placing, TracedPlacing):
            relay.placing.result = relay.result

    def end(self) -> None:
        if not self.is_kept:
            return
        now_s = self.clock()
        if self._trace is not None and self.traces is not None:
            self._end_trace(self._trace, now_s)
            self.traces.end(self._trace)
        if self.audit is not None and self.audit.tells_requests:
            facts = request_facts(
                request_id=self.request_id,
                path=self.path,
                key=self._key,
                model=self._model,
                revision=self.revision,
                mode=self._mode,
                status=self.status,
                seconds=now_s - self.began_s,
                result=self._result,
                entry=self.entry,
            )
            self.audit.add("request", **facts)

    def _end_trace(self, trace: Trace, now_s: float) -> None:
        result, entry = self._result, self.entry
        if result is not None and result.first_token_at is not None:
            trace.note("first_token", result.first_token_at)
        tokens = None
        if entry is not None:
            tokens = {
                "prompt": entry.prompt,
                "cached": entry.cached,
                "answer": entry.answer,
                "thinking": entry.thinking,
            }
        trace.end(
            now_s,
            status=self.status,
            outcome="refused" if result is None else str(result.outcome),
            code=None if result is None or result.failure is None else result.failure.code,
            continuations=None if result is None else result.progress.num_times,
            tokens=tokens,
        )
