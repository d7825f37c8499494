import asyncio
import socket

import pytest

from glm_worker.control import MAX_FRAME_BYTES, ControlLink, ProtocolError, encode_frame
from glm_worker.messages import Drain, FromServer, MetricsReply, ServerReady, ToServer


async def a_link() -> tuple[ControlLink[ToServer], socket.socket]:
    ours, theirs = socket.socketpair()
    return await ControlLink.open(ours, ToServer), theirs


async def test_messages_arrive_in_order_however_the_stream_is_cut() -> None:
    link, theirs = await a_link()
    sent = [Drain(deadline_s=1.0, accept_s=0.0), Drain(deadline_s=2.0, accept_s=0.5)]
    for byte in b"".join(encode_frame(message) for message in sent):
        theirs.send(bytes([byte]))
    assert [await link.receive(), await link.receive()] == sent
    theirs.close()
    link.close()


async def test_both_ends_of_a_link_understand_each_other() -> None:
    ours, theirs = socket.socketpair()
    server: ControlLink[ToServer] = await ControlLink.open(ours.detach(), ToServer)  # as an inherited descriptor
    supervisor: ControlLink[FromServer] = await ControlLink.open(theirs, FromServer)
    large = MetricsReply(id=1, text="x" * 1_000_000)
    server.send(large)
    server.send(ServerReady(port=8000))
    assert [await supervisor.receive(), await supervisor.receive()] == [large, ServerReady(port=8000)]
    server.close()
    assert await supervisor.receive() is None
    supervisor.close()


async def test_a_frame_cut_off_by_the_end_of_the_peer_is_the_end() -> None:
    link, theirs = await a_link()
    theirs.send(encode_frame(Drain(deadline_s=1.0, accept_s=0.0))[:-1])
    theirs.close()
    assert await link.receive() is None
    link.close()


async def test_sending_to_a_peer_that_is_gone_is_no_error() -> None:
    link, theirs = await a_link()
    theirs.close()
    link.send(Drain(deadline_s=1.0, accept_s=0.0))
    await link.flush()
    async with asyncio.timeout(10):
        assert await link.receive() is None
    link.send(Drain(deadline_s=1.0, accept_s=0.0))
    link.close()


@pytest.mark.parametrize(
    "data",
    [
        (MAX_FRAME_BYTES + 1).to_bytes(4),
        b"GET / HTTP/1.1\r\n\r\n",
        encode_frame(ServerReady(port=1)),  # a message, but not one for this end
        (3).to_bytes(4) + b"\xc1\xc1\xc1",
    ],
    ids=["too large", "another protocol", "another direction", "not msgpack"],
)
async def test_what_is_no_message_of_the_link_is_refused(data: bytes) -> None:
    link, theirs = await a_link()
    theirs.send(data)
    with pytest.raises(ProtocolError):
        await link.receive()
    theirs.close()
    link.close()
