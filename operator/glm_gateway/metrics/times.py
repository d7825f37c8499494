"""The moments of one request made into observations of its class, and the verdict on its promise. For one event loop.

Which class it is of may be known only from its reply: `auto` is decided by the worker, who says so in x-glm-thinking.
"""

import time
from array import array
from bisect import bisect_right
from collections.abc import Callable

from glm_edge.frames import Close, Open, Tokens
from glm_edge.metrics.promises import DEFAULT_CLASS, Latencies, Signal, is_met, is_missed
from glm_gateway.ladder.config import SloClassConfig
from glm_gateway.ladder.promises import RawHeaders, class_of
from glm_gateway.metrics.classes import Measures, ModelClasses
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.surfaces.thinking import REPLY_HEADER, Mode

Clock = Callable[[], float]


class RequestTimes:
    """Told what comes of a reply; makes each observation at most once, and counts the request once."""

    def __init__(
        self,
        model: ModelClasses,
        headers: RawHeaders = (),
        *,
        mode: Mode | None,
        streams: bool,
        arrived_s: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """headers: of the client. mode: of thinking, as far as it is known. arrived_s: by the clock; None: now."""
        self._clock = clock
        self._arrived_s = clock() if arrived_s is None else arrived_s
        self._streams = streams
        self._model = model
        self._slo, self._by_name = model.slo, model.by_name
        self._headers = [(name, value) for name, value in headers if name in self._names()]
        found = [self._class(each) for each in ("enabled", "disabled")]
        self._is_certain = found[0] is found[1] or mode in ("enabled", "disabled")
        self._promise = self._class(mode)
        self._is_open = False
        self._thinks = False
        self._num_answers = 1
        self._ttft: float | None = None
        self._ttfa: float | None = None
        self._untold: frozenset[Signal] = frozenset()  # what the reply does not let us know
        self._last_s: dict[int, float] = {}  # by answer: of its last token
        self._gaps_s = 0.0
        self._num_gaps = 0
        self._counts, self._moments = array("q"), array("d")  # tokens so far, and when, while it may think
        self._is_judged = False
        model.watched[self.look] = None

    def opened(self, opened: Open) -> None:
        """A group has taken the request. What a later group opens with changes nothing."""
        if self._is_open:
            return
        self._is_open = True
        self._num_answers = len(opened.seeds)
        told = next((value for name, value in opened.headers if name.lower() == REPLY_HEADER), "")
        self._thinks = told.partition(";")[0].strip() == "enabled"
        self._promise, self._is_certain = self._class("enabled" if self._thinks else "disabled"), True

    def tokens(self, tokens: Tokens) -> None:
        """Tokens have come together. The gap of each answer to its last one is shared evenly among its tokens."""
        num = 0
        for _, ids in tokens.ids:
            num += len(ids)
        if not num:
            return
        now, measures = self._clock(), self._measures
        if self._ttft is None:
            self._ttft = now - self._arrived_s
            measures.observe("time_to_first_token", self._ttft)
            if not self._thinks:
                self._answers(self._ttft)
        for index, ids in tokens.ids:
            if not ids:
                continue
            if (last_s := self._last_s.get(index)) is not None:
                gap_s = now - last_s
                self._gaps_s += gap_s
                self._num_gaps += len(ids)
                measures.observe("inter_token_latency", gap_s / len(ids), len(ids))
            self._last_s[index] = now
        if self._thinks and self._num_answers == 1:
            self._counts.append(num + (self._counts[-1] if self._counts else 0))
            self._moments.append(now)
        self._judge_if_missed(now)

    def closed(self, close: Close) -> None:
        """The reply is complete: now it is known how many of its tokens were thoughts."""
        if not self._thinks:
            return
        if self._num_answers > 1:
            self._untold = frozenset({"ttfa"})
        elif close.num_answer_tokens:
            place = bisect_right(self._counts, close.num_reasoning_tokens)
            if place < len(self._moments):
                self._answers(self._moments[place] - self._arrived_s)

    def ended(self, outcome: Outcome, *, is_plain: bool, first_byte_s: float | None) -> None:
        """The request has ended. is_plain: its reply was no frames. first_byte_s: when such a one began.

        What was refused as the client's own fault is not counted, nor one that it cancelled in time.
        """
        self._model.watched.pop(self.look, None)
        now = self._clock()
        if is_plain:
            self._take_plain(first_byte_s)
        if outcome is Outcome.FINISHED:
            e2e = now - self._arrived_s
            self._measures.observe("e2e_request_latency", e2e)
            self._judge_finished(e2e)
        elif outcome is Outcome.FAILED:
            self._judge(is_met=False)
        elif outcome is Outcome.CANCELLED:
            self._judge_if_missed(now)

    def look(self) -> None:
        """Count a request that cannot keep its promise any more, though it has not ended."""
        if self._is_certain:
            self._judge_if_missed(self._clock())

    @property
    def _measures(self) -> Measures:
        return self._by_name[DEFAULT_CLASS if self._promise is None else self._promise.name]

    @property
    def _thresholds_s(self) -> dict[Signal, float]:
        return {} if self._promise is None else self._promise.thresholds_s

    def _class(self, mode: str | None) -> SloClassConfig | None:
        return class_of(self._slo, mode=mode, headers=self._headers)

    def _names(self) -> set[bytes]:
        classes = self._slo.classes if self._slo is not None else ()
        return {each.header.name.lower().encode() for each in classes if each.header is not None}

    def _answers(self, ttfa: float) -> None:
        self._ttfa = ttfa
        self._measures.observe("time_to_first_answer_token", ttfa)

    def _take_plain(self, first_byte_s: float | None) -> None:
        """A plain reply tells no tokens: of a stream its first byte, of another one nothing but its end."""
        self._untold = frozenset({"ttfa", "itl"} if self._streams else {"ttft", "ttfa", "itl"})
        if self._streams and first_byte_s is not None and self._ttft is None:
            self._ttft = max(0.0, first_byte_s - self._arrived_s)
            self._measures.observe("time_to_first_token", self._ttft)

    def _judge_if_missed(self, now: float) -> None:
        if self._is_judged or self._promise is None:
            return
        unknown = self._untold | ({"ttfa"} if self._thinks and self._ttft is not None else set())
        known = {signal: limit_s for signal, limit_s in self._thresholds_s.items() if signal not in unknown}
        if is_missed(known, ttft=self._ttft, ttfa=self._ttfa, age_s=now - self._arrived_s):
            self._judge(is_met=False)

    def _judge_finished(self, e2e: float) -> None:
        """Judge a whole reply: missed for what is surely late, met only if nothing promised is unknown."""
        itl = self._gaps_s / self._num_gaps if self._num_gaps else None
        measured = Latencies(ttft=self._ttft, ttfa=self._ttfa, itl=itl, e2e=e2e)
        known = {signal: limit_s for signal, limit_s in self._thresholds_s.items() if signal not in self._untold}
        if not is_met(known, measured):
            self._judge(is_met=False)
        elif len(known) == len(self._thresholds_s):
            self._judge(is_met=True)

    def _judge(self, *, is_met: bool) -> None:
        if not self._is_judged and self._promise is not None:
            self._is_judged = True
            self._measures.judge(is_met=is_met)
