"""One request from its admission to its end: placed, sent, its reply passed on, and saved where its group is lost.

A reply in frames is passed on frame by frame. When its group is lost, another one goes on from the ids that the client
has seen; what was not opened is asked again, within the budget of retries. A plain reply, of a worker from before, is
passed on as it comes, and can be asked again only before its first byte.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from glm_edge.errors.failure import Failure
from glm_edge.frames import FRAMES_TYPE, BrokenFrames, Continuation
from glm_gateway.continuation.progress import Again, Bounds, GiveUp, GoOn, Progress
from glm_gateway.proxy.client import Added, Client, Send, Telling
from glm_gateway.proxy.connection import Connection, Head, NoConnection, UpstreamLost
from glm_gateway.proxy.outside import TO_THE_CLIENT, Outside, Reading, lost_outside
from glm_gateway.proxy.plain import AsItIs, pass_plain, read_away
from glm_gateway.proxy.relay.framed import Framed
from glm_gateway.proxy.relay.losses import Declined, Lost, TooLong, Unreached
from glm_gateway.proxy.relay.outcome import CUT, GROUP_LOST, Outcome, busy, outcome_of
from glm_gateway.proxy.relay.outgoing import Outgoing, Waits
from glm_gateway.proxy.relay.placing import Placing
from glm_gateway.proxy.relay.reply import Reply
from glm_gateway.proxy.relay.result import Hooks, Result
from glm_gateway.routing.pick import Choice
from glm_gateway.surfaces.usage import Stored

log = logging.getLogger(__name__)

MAX_ASKED = 4
"""Groups that one request is sent to before any of them has said a word of its reply."""

_BUSY = (
    502,
    503,
    529,
)  # a group that drains, starts again or is full: another one may not be. 529: as Anthropic says it
_UNFIT = 409  # a group that cannot go on with a reply, as of another revision


@dataclass
class Relay:
    """Relays one request. reply_added: headers of ours to the client. result: how it stands, or ended."""

    outgoing: Outgoing
    placing: Placing
    telling: Telling
    send: Send
    bounds: Bounds = field(default_factory=Bounds)
    waits: Waits = field(default_factory=Waits)
    reply_added: Added = ()
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.result = Result(Progress(self.bounds, began_s=self._loop.time()))
        self._client = Client(self.send, self.telling, self._reply_added, streams=self.outgoing.streams)
        self._reply = Reply(self._client, self.result, self.hooks)
        self._as_it_is: AsItIs | None = None

    @property
    def status(self) -> int:
        """Of the reply; 0: it has none yet."""
        return self._client.status

    @property
    def stored(self) -> Stored | None:
        """What the group says of a response that it keeps; None: the reply is about none."""
        return None if self._as_it_is is None else self._as_it_is.stored

    async def run(self) -> None:
        """Relay to the end; the client has been told how it ended. Raises BrokenReply, and what `send` raises."""
        continuation: Continuation | None = None
        lost: set[str] = set()
        declined: dict[str, Failure] = {}
        for _ in range(MAX_ASKED + self.bounds.max_times):
            choice = await self.placing.place(frozenset(lost.union(declined)))
            if isinstance(choice, Failure):
                await self._reply.fail(choice)
                return
            if not isinstance(choice, Choice):
                failure = await self._ask_outside(choice)
                if failure is not None and self.result.is_plain:
                    await self._reply.fail(failure)
                if failure is None or self.result.is_plain:
                    return
                continue
            try:
                is_again = bool(lost or declined) and continuation is None
                if choice.group in declined or (is_again and not self.placing.may_retry()):
                    break
                await self._ask(choice, continuation)
                return
            except Declined as no:
                self.result.is_asked = False
                declined[choice.group] = no.failure
            except Lost as loss:
                self.result.is_asked = False
                self.placing.fail(choice, str(loss))
                lost.add(choice.group)
                verdict = self._verdict(loss, continuation)
                if isinstance(verdict, GiveUp):
                    log.warning(
                        "group %s lost a reply (%s), which no other takes up: %s", choice.group, loss, verdict.reason
                    )
                    break
                continuation = verdict.continuation if isinstance(verdict, GoOn) else None
            finally:
                self.placing.end(choice)
        await self._reply.fail(next(iter(declined.values()), GROUP_LOST) if not lost else GROUP_LOST)

    async def tell_waiting(self, comment: bytes) -> None:
        """Tell the client of a stream for what it waits. Its head goes out with the first such word."""
        await self._reply.tell_waiting(comment)

    async def cut(self) -> None:
        """Tell the client that the gateway has no more time for it, once `run` was cancelled. Raises as that does."""
        if self.result.outcome is Outcome.CANCELLED:
            await self._reply.fail(CUT)

    def _reply_added(self) -> Added:
        return [*self.reply_added, *self.placing.easing.for_client]

    def _verdict(self, loss: Lost, continuation: Continuation | None) -> GoOn | Again | GiveUp:
        """Say what is to be done after a loss. continuation: what the group was asked to go on with."""
        if isinstance(loss, Unreached):
            return Again() if continuation is None else GoOn(continuation)  # nobody has tried
        if self.result.is_plain:
            return GiveUp("a plain reply had begun")
        return self.result.progress.lose(self._loop.time())

    async def _ask(self, choice: Choice, continuation: Continuation | None) -> None:
        """Ask a group, and pass its reply on to its end. Raises Lost and Declined."""
        try:
            pool, told = self.placing.pool(choice.group), self.placing.told(choice.group)
            connection = await pool.ask(*self.outgoing.request(self.placing.easing, continuation, told))
        except (NoConnection, KeyError) as error:
            raise Unreached(str(error)) from error
        except UpstreamLost as error:
            raise Lost(str(error)) from error
        self.result.group, self.result.is_asked, refusal = choice.group, True, None
        try:
            await self._pass_on(connection, choice, continuation)
        except TooLong as no:
            refusal = no.failure
        except (UpstreamLost, BrokenFrames) as error:
            raise Lost(str(error)) from error
        finally:
            pool.done(connection)
        if refusal is not None:
            await self._reply.fail(refusal)

    async def _pass_on(self, connection: Connection, choice: Choice, continuation: Continuation | None) -> None:
        waits_long = not self.outgoing.streams and self.placing.answers_late(choice.group)
        wait_s = self.waits.whole_s if waits_long else self.waits.head_s
        head = await connection.head(wait_s)
        if head.get(b"content-type") == FRAMES_TYPE.encode():
            framed = Framed(choice, self.placing, self.result, self._reply, self.hooks, self.waits)
            await framed.pass_on(connection)
        elif head.status in _BUSY:
            await read_away(connection, self.waits.last_s)
            raise Declined(busy(head))
        elif continuation is not None and head.status == _UNFIT:
            await read_away(connection, self.waits.last_s)
            raise Declined(GROUP_LOST)
        elif continuation is not None:
            raise Lost(f"asked to go on with a reply it answered {head.status}")
        else:
            await self._pass_plain(connection, head, choice)

    async def _pass_plain(self, connection: Connection, head: Head, choice: Choice) -> None:
        """Pass on a reply that is no frames: a refusal, a short answer, or one of a worker from before."""
        self.placing.succeed(choice, None)
        self._as_it_is = AsItIs(head.get(b"content-type"))
        await self._pass_as_it_comes(connection, head, self._as_it_is, self.waits.silence_s)

    async def _pass_as_it_comes(self, connection: Connection, head: Head, reading: Reading, silence_s: float) -> None:
        result = self.result
        result.is_plain, result.plain_status = True, head.status

        def began() -> None:
            result.note_first(self._loop.time())

        async def over() -> None:
            result.told, result.outcome = reading.told, outcome_of(head.status)
            await self.hooks.ended()

        failure = await pass_plain(connection, head, reading, self._client, silence_s=silence_s, began=began, over=over)
        if failure is not None:
            await self._reply.fail(failure)

    async def _ask_outside(self, outside: Outside) -> Failure | None:
        """Ask a server outside, and pass its reply on to its end; return why there is none, or not all of one."""
        out, connection = self.outgoing, None
        self.result.group = outside.name
        try:
            path = out.target.partition("?")[0]
            connection, reading = await outside.ask(path, out.headers, out.body, streams=out.streams)
            self.result.is_asked = True
            head = await connection.head(self.waits.outside_s if out.streams else self.waits.whole_s)
            if head.status >= 300 and head.status not in TO_THE_CLIENT:
                await read_away(connection, self.waits.last_s)
                raise UpstreamLost(f"it answered {head.status}", has_answered=True)
            outside.succeed()
            await self._pass_as_it_comes(connection, head, reading, self.waits.outside_s)
        except UpstreamLost as loss:
            self.result.is_asked = False
            outside.fail(str(loss))
            return lost_outside(outside.name)
        finally:
            if connection is not None:
                outside.done(connection)
        return None
