"""What a request asks of a group: an answer, a count of tokens, or what the group keeps. Each takes what it may.

What is reserved is settled once, whatever happens in between.
"""

from glm_edge.errors.failure import Failure
from glm_edge.frames import Open
from glm_gateway.admission.reserved import Refused as OverLimit
from glm_gateway.admission.reserved import Reserved
from glm_gateway.exchange.destination import context_header, prompt_tokens
from glm_gateway.exchange.refused import Refused, not_found
from glm_gateway.exchange.relaying import Relaying
from glm_gateway.exchange.settling import Settling
from glm_gateway.metrics.times import RequestTimes
from glm_gateway.models.model import Model
from glm_gateway.models.only import ToGroup
from glm_gateway.models.placement import Placement
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.proxy.relay.relay import Relay
from glm_gateway.proxy.relay.result import Result
from glm_gateway.surfaces.ask import Ask
from glm_gateway.surfaces.thinking import REPLY_HEADER
from glm_gateway.upstreams.upstream import Upstream


async def generate(way: Relaying, target: Model | Upstream, ask: Ask, *, whole_s: float) -> None:
    """Have an answer written. whole_s: when the request was whole, monotonic. Raises Refused."""
    gateway, to = way.gateway, way.destination
    reserved = _let_in(
        await gateway.metering.reserve(to.caller, target.name, way.words.api, ask, prompt_tokens(ask.num_bytes))
    )
    settle: Settling | None = None
    try:
        way.record.reserved(reserved.reservation.usage)
        placing = to.placing(target, ask, writes=True)
        to_group = context_header(reserved.context_tokens)
        relay = way.relay(placing, streams=ask.streams, added=reserved.headers, to_group=to_group)
        _reserve_whole_prompt(way, relay, reserved)
        if isinstance(placing, Placement) and ask.streams:
            placing.tell = relay.tell_waiting
        times = None
        if not ask.in_background:  # nobody reads its tokens here
            times = relay.hooks.watching = gateway.telemetry.watch(
                target.name, way.headers, mode=ask.mode, streams=ask.streams, arrived_s=whole_s
            )
        settle = relay.hooks.ended = Settling(
            gateway.metering,
            gateway.background,
            gateway.keepers,
            reserved,
            relay,
            placing,
            to.told(placing),
            to.own_id,
            to.began_s,
        )
        gateway.metering.begin(reserved, to.own_id, relay.result)
        try:
            await way.run(relay, placing)
        finally:
            _learn(way, target, relay, times, in_background=ask.in_background)
    finally:
        if settle is None:
            await gateway.metering.drop(reserved)
        else:
            await settle()
            way.record.entry = settle.entry
            settle.relay.hooks.forget()


async def count(way: Relaying, target: Model | Upstream, ask: Ask) -> None:
    """Have tokens counted: that takes a request of its caller's, and no tokens. Raises Refused."""
    metering, caller = way.gateway.metering, way.destination.caller
    reserved = _let_in(await metering.reserve_count(caller, target.name, way.words.api))
    relay: Relay | None = None
    try:
        placing = way.destination.placing(target, ask, writes=False)
        relay = way.relay(placing, streams=ask.streams, added=reserved.headers)
        await way.run(relay, placing)
    finally:
        if relay is not None and _was_counted(relay.result):
            await metering.end_count(reserved)
        else:
            await metering.drop(reserved)


async def ask_keeper(way: Relaying, response_id: str) -> None:
    """Ask the group that keeps a response. Raises Refused."""
    gateway = way.gateway
    group = gateway.keepers.of(response_id)
    model = next((model for model in gateway.models.values() if model.has(group)), None)
    if model is None:
        raise not_found(f"no response {response_id[:100]} is stored here, or the group that kept it is no more")
    keeper = ToGroup(model, group)
    relay = way.relay(keeper, streams=b"stream=true" in way.scope["query_string"])

    async def hear() -> None:
        await gateway.background.hear(relay.stored)

    relay.hooks.ended = hear
    try:
        await way.run(relay, keeper)
    finally:
        relay.hooks.forget()


def _was_counted(result: Result) -> bool:
    """Tell whether a group did what it was asked, or may have when its client left."""
    return result.outcome is Outcome.FINISHED or (result.outcome is Outcome.CANCELLED and result.is_asked)


def _let_in(found: Reserved | OverLimit) -> Reserved:
    """Return what is reserved. Raises Refused."""
    if isinstance(found, OverLimit):
        raise Refused(found.failure, found.headers)
    return found


def _reserve_whole_prompt(way: Relaying, relay: Relay, reserved: Reserved) -> None:
    """Have a prompt that is longer than reserved reserved whole, once its group has counted it."""
    metering = way.gateway.metering

    async def opening(num_prompt_tokens: int) -> Failure | None:
        over = await metering.reserve_more(reserved, num_prompt_tokens)
        if over is None:
            return None
        relay.reply_added = [*way.words.id_headers, *over.headers]
        return over.failure

    relay.hooks.opening = opening


def _learn(
    way: Relaying, target: Model | Upstream, relay: Relay, times: RequestTimes | None, *, in_background: bool
) -> None:
    """Note what a reply shows: how long it took, and of its group what it can and does."""
    result = relay.result
    if times is not None:
        times.ended(result.outcome, is_plain=result.is_plain, first_byte_s=result.first_token_at)
    if not isinstance(target, Model):
        return
    has_plain = result.is_plain and relay.status < 300 and not in_background
    if result.progress.opened is not None or has_plain:
        target.hear_reply(result.group, in_frames=not result.is_plain)
        target.hear_thinking(_thinking_of(result.progress.opened))
    way.record.revision = target.revision_of(result.group)


def _thinking_of(opened: Open | None) -> str:
    """Return what a reply says of how it was answered; empty: nothing."""
    headers = [] if opened is None else opened.headers
    return next((value for name, value in headers if name.lower() == REPLY_HEADER), "")
