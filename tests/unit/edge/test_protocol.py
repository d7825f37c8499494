"""The states of a connection, byte by byte, over a transport that only notes what is written."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from uvicorn import Config
from uvicorn.server import ServerState

from glm_edge.errors.failure import Failure
from glm_edge.http import protocol
from glm_edge.http.connections import Connections
from glm_edge.http.protocol import Answer, options, protocol_with

GET = b"GET /get HTTP/1.1\r\nhost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
OFFER = b"connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAEA\r\nupgrade: h2c\r\n"
CHUNKS = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx-trailer: upgrade\r\n\r\n"


class Transport(asyncio.Transport):
    """What a client reads of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_read = True
        self.has_ended = False
        self.closed = asyncio.Event()
        self.aborted = asyncio.Event()

    def write(self, data: Any) -> None:
        assert not self.closed.is_set()
        assert not self.has_ended
        self.written += data

    def write_eof(self) -> None:
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.closed.set()
        self.aborted.set()

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class Client:
    """A connection to an application that tells what it was asked: at once, or under /slow when it is let."""

    def __init__(self) -> None:
        self.let_on = asyncio.Event()
        self.num_gone = 0
        self.parts: list[bytes] = []  # of bodies, as the application was told of them
        self.transport = Transport()
        config = Config(
            self._app, interface="asgi3", lifespan="off", log_config=None, **options(self._answer, _any_number())
        )
        config.load()
        self.state = ServerState()
        made = protocol_with(self._answer, _any_number())
        self.protocol = made(config=config, server_state=self.state, app_state={})
        self.protocol.connection_made(self.transport)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            gone = asyncio.ensure_future(self._gone(receive))
            let_on = asyncio.ensure_future(self.let_on.wait())
            await asyncio.wait({gone, let_on}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.num_gone += 1
                return
            gone.cancel()
        body, more = b"", scope["path"] == "/post"
        while more:
            message = await receive()
            self.parts.append(message.get("body", b""))
            body += self.parts[-1]
            more = message.get("more_body", False)
        offered = [name.decode() for name, _ in scope["headers"] if name == b"upgrade"]
        told = json.dumps([scope["method"], scope["path"], body.decode(), *offered]).encode()
        headers = [] if scope["path"] == "/stream" else [(b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    @staticmethod
    async def _gone(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    @staticmethod
    def _answer(path: str, headers: Headers, failure: Failure) -> Answer:
        return Answer(failure.status, {}, json.dumps(failure.message).encode())

    async def send(self, *parts: bytes) -> None:
        """Send parts, and wait until all that can be answered is."""
        for part in parts:
            self.protocol.data_received(part)
            await self.turns()

    async def turns(self) -> None:
        for _ in range(300):
            await asyncio.sleep(0)

    async def closed(self) -> None:
        await asyncio.wait_for(self.transport.closed.wait(), 30)

    def lose(self) -> None:
        self.protocol.connection_lost(ConnectionResetError())

    def told(self) -> list[Any]:
        """Return the bodies of all answers in order."""
        found, rest = [], self.transport.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100"):
                continue
            length = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
            found.append(json.loads(rest[:length]))
            rest = rest[length:]
        return found


def _any_number() -> Connections:
    return Connections(lambda num: None, lambda reason: None)


def post(body: bytes, *, path: bytes = b"/post", headers: bytes = b"", chunked: bool = False) -> bytes:
    wrapping = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(body)
    return b"POST %s HTTP/1.1\r\nhost: x\r\n%s%s\r\n\r\n%s" % (path, headers, wrapping, body)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_S", "IDLE_S", "REST_S", "LINGER_S", "TOLD_S"):
        monkeypatch.setattr(protocol, name, 3600.0)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda name: monkeypatch.setattr(protocol, name, 0.01)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
async def test_an_offer_of_another_protocol_is_passed_over_however_the_bytes_come(size: int) -> None:
    client = Client()
    requests = (
        GET,
        post(b"with a length", headers=OFFER),
        post(CHUNKS, headers=OFFER, chunked=True),
        GET.replace(b"\r\n\r\n", b"\r\n" + OFFER + b"\r\n"),
        post(b"without an offer"),
        b"\r\n" + GET,
    )
    sent = b"".join(requests)
    await client.send(*(sent[at : at + size] for at in range(0, len(sent), size)))
    assert client.told() == [
        ["GET", "/get", ""],
        ["POST", "/post", "with a length"],
        ["POST", "/post", "hello world"],
        ["GET", "/get", ""],
        ["POST", "/post", "without an offer"],
        ["GET", "/get", ""],
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(b"content-length: 99999999\r\n", "larger than"), (b"host: y\r\n", "Host is there twice")],
)
async def test_a_head_with_an_offer_is_checked_as_any_other(wrong: bytes, said: str) -> None:
    client = Client()
    await client.send(b"POST /post HTTP/1.1\r\nhost: x\r\n" + OFFER + wrong + b"\r\n")
    assert said in client.told()[0]
    assert client.transport.has_ended


@pytest.mark.parametrize("before", [b"", b"\r\n", GET, SLOW, post(b"body"), GET + GET])
async def test_every_head_has_a_time_from_its_first_byte(before: bytes, soon: Callable[[str], None]) -> None:
    client = Client()
    client.let_on.set()
    soon("HEAD_S")
    soon("LINGER_S")
    await client.send(before + b"G")
    client.protocol.data_received(b"E")
    await client.closed()
    assert client.told()[-1].startswith("the head of the request was not complete")


async def test_a_head_in_one_segment_with_the_end_of_another_has_a_time_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client()
    await client.send(GET[:5])
    first = client.protocol._timer
    await client.send(GET[5:] + b"G")
    assert first is not None
    assert first.cancelled()
    second = client.protocol._timer
    assert second is not None
    assert not second.cancelled()


@pytest.mark.parametrize("sent", [b"", b"\r\n", GET, GET + b"\r\n", post(b"body") + b"\r\n"])
async def test_lines_without_words_do_not_keep_a_connection(sent: bytes, soon: Callable[[str], None]) -> None:
    soon("IDLE_S")
    client = Client()
    client.protocol.data_received(sent)
    async with asyncio.timeout(30):
        while not client.transport.is_closing():
            client.protocol.data_received(b"\r\n")
            await asyncio.sleep(0)


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_is_left_of_a_body_has_a_time_once_its_answer_is_complete(
    chunked: bool, soon: Callable[[str], None]
) -> None:
    soon("REST_S")
    client = Client()
    wrapping = b"transfer-encoding: chunked\r\n\r\nffff\r\n" if chunked else b"content-length: 100000\r\n\r\n"
    await client.send(b"POST /get HTTP/1.1\r\nhost: x\r\n" + wrapping)
    assert len(client.told()) == 1
    async with asyncio.timeout(30):
        while not client.transport.is_closing():
            client.protocol.data_received(b"x")
            await asyncio.sleep(0)


async def test_parts_of_a_body_that_come_one_behind_the_other_are_told_together() -> None:
    client, request = Client(), post(b"a" * 50_000)
    await client.send(*(request[at : at + 1000] for at in range(0, len(request), 1000)))
    assert client.parts == [b"a" * 50_000]


async def test_of_a_long_body_no_more_is_kept_than_may_be_unread() -> None:
    client, request = Client(), post(b"a" * 2**20)
    await client.send(*(request[at : at + 1000] for at in range(0, len(request), 1000)))
    assert b"".join(client.parts) == b"a" * 2**20
    assert max(map(len, client.parts)) <= protocol.MAX_UNREAD_BYTES + 1000
    assert client.transport.is_read


async def test_a_body_that_stops_is_told_as_far_as_it_came(soon: Callable[[str], None]) -> None:
    soon("TOLD_S")
    client = Client()
    await client.send(post(b"a" * 100)[:-90])
    async with asyncio.timeout(30):
        while not client.parts:  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)
    assert client.parts == [b"a" * 10]
    await client.send(b"a" * 90)
    assert client.told() == [["POST", "/post", "a" * 100]]


async def test_a_body_that_comes_whole_after_its_answer_leaves_the_connection_for_the_next_request() -> None:
    client = Client()
    request = post(b"body", path=b"/get")
    await client.send(request[:-4], request[-4:], GET)
    assert client.told() == [["POST", "/get", ""], ["GET", "/get", ""]]
    assert client.protocol._state is protocol._State.IDLE


async def test_a_body_that_goes_wrong_after_its_answer_ends_the_connection_without_another_answer() -> None:
    client = Client()
    await client.send(post(b"", path=b"/get", chunked=True), b"zz\r\n")
    assert client.told() == [["POST", "/get", ""]]
    assert client.transport.has_ended


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (b"NONSENSE\r\n\r\n", "its method is not known"),
        (b"GET /get", "not complete within"),
        (post(b"zz\r\n", chunked=True), "a chunk of its body is malformed"),
        (GET + post(b"zz\r\n", chunked=True), "a chunk of its body is malformed"),
        (GET * protocol.MAX_WAITING + GET, "32 requests before it wait"),
    ],
)
async def test_what_is_wrong_behind_a_request_waits_for_its_answer(
    behind: bytes, said: str, soon: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()
    monkeypatch.setattr(protocol, "HEAD_S", 0.0)
    soon("LINGER_S")
    await client.send(SLOW + behind)
    assert client.transport.written == b""
    client.let_on.set()
    await client.closed()
    answers = client.told()
    assert answers[0] == ["GET", "/slow", ""]
    assert answers[1:-1] == [["GET", "/get", ""]] * behind.count(GET[:-2], 0, len(GET) * protocol.MAX_WAITING)
    assert said in answers[-1]


@pytest.mark.parametrize("behind", [b"\r\n", b"\r\n\r\n\r\n"])
async def test_empty_lines_behind_a_body_count_for_nothing(behind: bytes, soon: Callable[[str], None]) -> None:
    soon("HEAD_S")
    client = Client()
    await client.send(SLOW, behind)
    late = Client()
    soon("LINGER_S")
    await late.send(b"G")
    await late.closed()  # by then the head behind would have been late, had one begun
    client.let_on.set()
    await client.send(b"", GET)
    assert client.told() == [["GET", "/slow", ""], ["GET", "/get", ""]]


@pytest.mark.parametrize("parts", [[SLOW + GET], [SLOW, GET], [SLOW, GET + SLOW], [SLOW, b"GET /ge"]])
async def test_a_client_that_is_lost_ends_what_is_being_answered_whatever_it_sent_behind(
    parts: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    await client.send(*parts)
    client.lose()
    await client.turns()
    assert client.num_gone == 1
    assert not client.state.tasks
    assert caplog.text == ""


async def test_a_client_that_is_not_read_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PROBE_FIRST_S", 0.0)
    client = Client()
    await client.send(SLOW, GET)
    assert not client.transport.is_read
    assert client.transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.lose()


async def test_a_client_of_http_1_0_gets_neither_chunks_nor_interim_answers() -> None:
    client = Client()
    head = b"GET /stream HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
    await client.send(head, b"x")
    told, _, body = client.transport.written.partition(b"\r\n\r\n")
    assert told == b"HTTP/1.1 200 OK\r\nconnection: close"
    assert json.loads(body) == ["GET", "/stream", ""]
    assert client.transport.is_closing()


@pytest.mark.parametrize(
    "wrong", [b"host: x\r\na b: c\r\n\r\n", b"\r\n", b"host: x\r\ncontent-length: 99999999\r\n\r\n"]
)
async def test_a_refusal_of_head_says_its_length_and_has_no_body(wrong: bytes) -> None:
    client = Client()
    await client.send(b"HEAD /get HTTP/1.1\r\n" + wrong)
    head, _, body = client.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert b"content-length: " in head
    assert body == b""


async def test_what_comes_behind_head_and_is_no_request_is_refused_with_a_body() -> None:
    client = Client()
    await client.send(b"HEAD /get HTTP/1.1\r\nhost: x\r\n\r\n", b"NONSENSE\r\n\r\n")
    first, _, second = client.transport.written.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 400")
    assert b"not known" in second


async def test_a_client_of_http_1_0_that_closes_its_half_is_gone() -> None:
    client = Client()
    await client.send(SLOW.replace(b"1.1", b"1.0"))
    assert client.protocol.eof_received() is False
    client.lose()
    await client.turns()
    assert client.num_gone == 1


PIECES = [
    GET,
    SLOW,
    SLOW.replace(b"1.1", b"1.0"),
    post(b"body"),
    post(b"body", path=b"/get"),
    post(b"body", path=b"/slow"),
    post(CHUNKS, chunked=True),
    post(CHUNKS, path=b"/get", headers=OFFER, chunked=True),
    post(b"zz\r\n", chunked=True),
    post(b"1\r\n", path=b"/stream", chunked=True),
    GET.replace(b"\r\n\r\n", b"\r\n" + OFFER + b"\r\n"),
    GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
    b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n" + OFFER + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n",
    b"\0",
    b"x" * 70_000,
]


@given(st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 200)), max_size=6), st.booleans(), st.booleans())
async def test_whatever_comes_a_connection_has_an_end_and_every_answer_is_whole(
    sent: list[tuple[bytes, int]], ends: bool, lets_on: bool
) -> None:
    client = Client()
    for data, size in sent:
        for part in (data[:size], data[size:]):
            if part and not client.transport.is_closing():
                client.protocol.data_received(part)
                for _ in range(20):
                    await asyncio.sleep(0)
    if ends and not client.transport.is_closing() and client.protocol.eof_received() is False:
        client.transport.close()
    if lets_on:
        client.let_on.set()
    await client.turns()
    if not client.transport.is_closing():
        is_answering = client.protocol._state is protocol._State.ANSWERING
        assert is_answering == (client.protocol._timer is None)
        assert not is_answering or not client.let_on.is_set() or client.protocol.cycle.more_body
    assert b"Internal Server Error" not in client.transport.written
    client.lose()
    await client.turns()
    assert not client.state.tasks


@pytest.mark.parametrize("before", [b"", GET, SLOW])
async def test_who_does_not_read_on_is_cut_off(before: bytes, soon: Callable[[str], None]) -> None:
    client = Client()
    soon("UNREAD_S")
    await client.send(before)
    client.protocol.pause_writing()
    await asyncio.wait_for(client.transport.aborted.wait(), 30)
    client.lose()
    await client.turns()
    assert client.num_gone == (before is SLOW)


async def test_who_reads_on_in_time_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch, soon: Callable[[str], None]
) -> None:
    client = Client()
    soon("UNREAD_S")
    monkeypatch.setattr(protocol, "IDLE_S", 0.1)
    client.protocol.pause_writing()
    client.protocol.resume_writing()
    monkeypatch.setattr(protocol, "UNREAD_S", 3600.0)
    await client.send(GET)
    await client.closed()
    assert not client.transport.aborted.is_set()
    assert client.told() == [["GET", "/get", ""]]


async def test_what_is_not_read_of_a_connection_that_is_closed_is_dropped(soon: Callable[[str], None]) -> None:
    client = Client()
    soon("IDLE_S")
    soon("UNREAD_S")
    await client.send(GET)
    await asyncio.wait_for(client.transport.aborted.wait(), 30)
