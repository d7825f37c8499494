"""A head goes out with what follows it at once, and is never kept from who waits for it."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_edge.http.whole_heads import WholeHeads

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.calls.append(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.calls.append(b"<eof>")

    def close(self) -> None:
        self.calls.append(b"<closed>")

    def abort(self) -> None:
        self.calls.append(b"<aborted>")


class Rounds:
    """Stands for the loop: what is to be called soon is called when a round ends."""

    def __init__(self) -> None:
        self.wire, self._soon = Wire(), list[Any]()
        self.transport = WholeHeads(self.wire, self._soon.append)

    def end(self) -> None:
        soon, self._soon[:] = list(self._soon), []
        for call in soon:
            call()


def test_a_head_and_its_body_are_one_write() -> None:
    rounds = Rounds()
    rounds.transport.write(HEAD)
    rounds.transport.write(b"body")
    rounds.transport.write(b"more")
    rounds.end()
    assert rounds.wire.calls == [HEAD + b"body", b"more"]


def test_a_head_without_a_body_goes_out_when_the_round_ends() -> None:
    rounds = Rounds()
    rounds.transport.write(HEAD)
    rounds.end()
    assert rounds.wire.calls == [HEAD]
    rounds.transport.write(b"body")
    assert rounds.wire.calls == [HEAD, b"body"]


@pytest.mark.parametrize(("end", "sign"), [("close", b"<closed>"), ("write_eof", b"<eof>")])
def test_an_end_comes_behind_the_head(end: str, sign: bytes) -> None:
    rounds = Rounds()
    rounds.transport.write(HEAD)
    getattr(rounds.transport, end)()
    rounds.end()
    assert rounds.wire.calls == [HEAD, sign]


def test_what_is_cut_off_writes_nothing_more() -> None:
    rounds = Rounds()
    rounds.transport.write(HEAD)
    rounds.transport.abort()
    rounds.end()
    assert rounds.wire.calls == [b"<aborted>"]


@given(st.lists(st.one_of(st.sampled_from([HEAD, b"HTTP/1.1 100 Continue\r\n\r\n", b"", None]), st.binary(max_size=9))))
def test_every_byte_is_written_once_in_its_order(written: list[bytes | None]) -> None:
    """None: a round ends."""
    rounds = Rounds()
    for data in written:
        if data is None:
            rounds.end()
        else:
            rounds.transport.write(data)
    rounds.end()
    assert b"".join(rounds.wire.calls) == b"".join(each for each in written if each)
