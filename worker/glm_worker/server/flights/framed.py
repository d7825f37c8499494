"""The response to an order as frames for a gateway: token ids beside the bytes that tell them (glm_edge/frames.py).

What another group has begun is read again and told to nobody; then the reply goes on as if it had been begun here.
"""

from collections.abc import Mapping
from functools import partial

from starlette.types import Send

from glm_edge.frames import FRAMES_TYPE, Close, Fail, Frame, Idle, Meaning, Open, Tokens, encode
from glm_worker.errors import DeadlinePassed, GenerationLost, Overloaded
from glm_worker.server.flights.exchange import EVENTS, JSON, Exchange, error_of, is_cancelled, lines
from glm_worker.server.flights.flight import Flight
from glm_worker.server.flights.flights import Flights
from glm_worker.server.flights.news import News
from glm_worker.server.flights.replies import Answered, Ending, Replies
from glm_worker.server.flights.so_far import ReadSoFar, read_so_far
from glm_worker.server.flights.spans import NO_SPANS, Spans
from glm_worker.server.flights.whole import made_of
from glm_worker.server.jobs.order import Order
from glm_worker.server.refusals import failure_of
from glm_worker.server.text.long_json import parts_of

SIGN_OF_LIFE_S = 10.0  # between two frames, however long a step or a thought takes: a gateway waits for three


class FramedExchange(Exchange):
    """Raises only before its head is sent: an order that is refused, or what nobody expected. Later errors are a frame,
    so that a gateway does not take a request that cannot be told for a group that is broken.
    """

    def __init__(
        self,
        order: Order,
        replies: Replies,
        flights: Flights,
        headers: Mapping[str, str],
        spans: Spans = NO_SPANS,
        *,
        fingerprint: str,
    ) -> None:
        """fingerprint: of what makes text of ids here."""
        super().__init__(order, replies, flights, headers, spans)
        self._fingerprint = fingerprint
        self._endings: dict[int, Ending] = {}
        self._num_told: list[int] = []  # ids of each answer
        self._has_failed = False

    async def _write(self, flights: list[Flight], send: Send) -> None:
        await self._open(flights, send)
        news = flights[0].news
        while not is_cancelled(flights):
            news.clear()
            if (failed := error_of(flights)) is not None:
                await self._fail(failed, send)
                return
            # Before the reader is waited for: what comes meanwhile is told next, the end of the answers as well.
            is_over = all(flight.ended for flight in flights)
            await self._tell(flights, send)
            if is_over:
                return
            await self._wait(news, send)

    async def _read_so_far(self) -> list[ReadSoFar]:
        """Return what another group has written of each answer. The replies of a stream take it, and nobody is told."""
        if not self._order.stream:
            return await super()._read_so_far()
        return [await read_so_far(job, partial(self._chunks, index)) for index, job in enumerate(self._order.jobs)]

    async def _open(self, flights: list[Flight], send: Send) -> None:
        """Send the head and the first frame. What another group has told is not told again."""
        order, streams = self._order, self._order.stream
        opening = self._replies.opening() if streams else []
        self._num_told = [0] * len(flights)
        if order.is_begun:
            opening = []
            self._num_told = [len(flight.token_ids) for flight in flights]
            if streams:
                self._events(flights, self._endings)
                if order.begun_state:  # none before the first token: then the opening is all that was told
                    self._replies.restore(order.begun_state)  # type: ignore[attr-defined]
                if (forget := getattr(self._replies, "forget", None)) is not None:
                    forget()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", FRAMES_TYPE.encode())]})
        self._has_started = True
        headers = [*(EVENTS if streams else JSON), *self._own_headers]
        meaning = Open(
            id=order.id,
            created=order.created,
            seeds=[job.sampling.seed for job in order.jobs],
            status=200,
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
            num_prompt_tokens=order.num_prompt_tokens,
            fingerprint=self._fingerprint,
            can_continue=all(job.num_logprobs is None for job in order.jobs),
        )
        await self._frame(send, meaning, lines(opening))

    async def _tell(self, flights: list[Flight], send: Send) -> None:
        """Send what is new: ids, and in a stream the events that tell them, in one frame."""
        ended = [
            (index, flight.engine_end)
            for index, flight in enumerate(flights)
            if flight.ended is not None and flight.engine_end is not None and index not in self._endings
        ]
        ids = [
            (index, flight.token_ids[told:])
            for index, (flight, told) in enumerate(zip(flights, self._num_told, strict=True))
            if len(flight.token_ids) > told
        ]
        self._num_told = [len(flight.token_ids) for flight in flights]
        events = self._events(flights, self._endings) if self._order.stream else []
        if ids or ended or events:
            state = self._order.carried(getattr(self._replies, "state", b"") if self._order.stream else b"")
            await self._frame(send, Tokens(ids=ids, ended=ended, state=state), lines(events))

    async def _complete(self, flights: list[Flight], send: Send) -> None:
        if self._has_failed or is_cancelled(flights):
            return
        endings = [flight.ending for flight in flights]
        if self._order.stream:
            told = lines(self._replies.closing(endings))
        else:
            answers = [Answered(self._visible(flight.take()), flight.ending) for flight in flights]
            told = b"".join(await made_of(answers, lambda: parts_of(self._replies.body(answers))))
        num_reasoning = sum(ending.num_reasoning_tokens for ending in endings)
        meaning = Close(
            num_prompt_tokens=self._order.num_prompt_tokens,
            num_cached_tokens=self._order.num_cached_tokens([ending.num_cached_tokens for ending in endings]),
            num_reasoning_tokens=num_reasoning,
            num_answer_tokens=sum(ending.num_tokens for ending in endings) - num_reasoning,
            reasons=[ending.reason for ending in endings],
        )
        await self._frame(send, meaning, told, more=False)

    async def _wait(self, news: News, send: Send) -> None:
        while not await news.wait(SIGN_OF_LIFE_S):
            await self._frame(send, Idle(), self._waiting if self._order.stream else b"")

    async def _miss_deadline(self, send: Send) -> None:
        assert self._order.deadline_s is not None
        await self._fail(DeadlinePassed(self._order.deadline_s), send)

    async def _fail(self, error: Exception, send: Send) -> None:
        self._has_failed = True
        failure = failure_of(error)
        meaning = Fail(
            status=failure.status,
            message=failure.message,
            type=failure.type,
            param=failure.param,
            code=failure.code,
            retry_after_s=failure.retry_after_s,
            can_continue=isinstance(error, GenerationLost | Overloaded),
        )
        told = lines(self._replies.failure(failure)) if self._order.stream else b""
        await self._frame(send, meaning, told, more=False)

    @staticmethod
    async def _frame(send: Send, meaning: Meaning, told: bytes = b"", *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": encode(Frame(meaning, told)), "more_body": more})
