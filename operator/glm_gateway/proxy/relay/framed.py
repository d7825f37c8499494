"""What one group writes of a reply, in frames: each is noted, and passed on when all of it is here.

So a client never has half an event, and what it has seen is known to the token.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from glm_edge.frames import BrokenFrames, Close, Fail, Frame, FrameReader, Open, Tokens
from glm_gateway.proxy.connection import Connection
from glm_gateway.proxy.plain import read_away
from glm_gateway.proxy.relay.losses import Lost, TooLong
from glm_gateway.proxy.relay.outcome import Outcome, outcome_of
from glm_gateway.proxy.relay.outgoing import Waits
from glm_gateway.proxy.relay.placing import Placing
from glm_gateway.proxy.relay.reply import Reply
from glm_gateway.proxy.relay.result import Hooks, Result
from glm_gateway.routing.pick import Choice

_ENDS = (Close, Fail)  # a union would be made anew for each frame


@dataclass
class Framed:
    """The part that one group writes. is_open: it has opened it."""

    choice: Choice
    placing: Placing
    result: Result
    reply: Reply
    hooks: Hooks
    waits: Waits
    is_open: bool = False
    _now_s: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)

    async def pass_on(self, connection: Connection) -> None:
        """Pass frames on until the reply is over. Raises Lost, TooLong, BrokenFrames and UpstreamLost."""
        reader, progress = FrameReader(), self.result.progress
        while not progress.is_over:
            data = await connection.read(self.waits.silence_s)
            if not data:
                raise Lost("its frames ended before its reply did")
            try:
                for frame in reader.feed(data):
                    meaning = frame.meaning
                    if self.is_open and isinstance(meaning, Tokens):  # nearly all, so this is short
                        self._take(meaning, frame.told)
                        continue
                    if isinstance(meaning, Fail) and meaning.can_continue:
                        raise Lost(f"it cannot go on: {meaning.code}")
                    await self._pass_frame(frame)
                    if isinstance(meaning, _ENDS):
                        break  # what comes behind the end is nothing of the reply
            except (Lost, BrokenFrames):
                await self.reply.flush()  # what was taken counts as seen, so it has to be
                raise
            await self.reply.flush()
        await read_away(connection, self.waits.last_s)

    def _take(self, tokens: Tokens, told: bytes) -> None:
        """Note tokens of a reply that is open, and keep what tells them for the client."""
        result, progress = self.result, self.result.progress
        num_tokens = progress.num_tokens
        progress.take(tokens)
        self.hooks.watching.tokens(tokens)
        if num_tokens < progress.num_tokens:
            if result.first_token_at is None:
                result.note_first(self._now_s())
            self.placing.grow(self.choice, progress.num_tokens - num_tokens)
        self.reply.take(told)

    async def _pass_frame(self, frame: Frame) -> None:
        """Take any other frame. Raises Lost where the reply is not open yet and that opens none."""
        meaning, progress = frame.meaning, self.result.progress
        self.is_open = self.is_open or isinstance(meaning, Open)
        if not self.is_open and not isinstance(meaning, Fail):
            raise Lost(f"it began with {type(meaning).__name__.lower()}, and not by opening its reply")
        progress.take(meaning)
        if isinstance(meaning, _ENDS):
            if isinstance(meaning, Close):
                self.hooks.watching.closed(meaning)
            await self._end(meaning, frame.told)
            return
        if isinstance(meaning, Open):
            self.hooks.watching.opened(meaning)
            await self._opened(meaning)
            await self.reply.open(meaning)
        self.reply.take(frame.told)

    async def _opened(self, opened: Open) -> None:
        """Note that a group has begun the reply. Raises TooLong for a prompt of more tokens than may be used."""
        self.placing.succeed(self.choice, opened.num_prompt_tokens)
        is_first = opened is self.result.progress.opened
        if is_first and (failure := await self.hooks.opening(opened.num_prompt_tokens)) is not None:
            raise TooLong(failure)

    async def _end(self, meaning: Close | Fail, told: bytes) -> None:
        """Note how the reply ends, and tell a client that reads all of it at once, or nothing yet."""
        self.result.outcome = Outcome.FINISHED if isinstance(meaning, Close) else outcome_of(meaning.status)
        await self.hooks.ended()
        streams, has_started = self.reply.client.streams, self.reply.client.has_started
        if isinstance(meaning, Fail) and not (streams and has_started):
            await self.reply.fail(meaning.failure)
        elif streams:
            self.reply.take(told)
        else:
            await self.reply.tell_whole(told)
