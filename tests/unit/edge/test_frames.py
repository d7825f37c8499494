"""Frames say the same however they are cut into pieces, and what is no frame is said to be none."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_edge.frames import (
    MAX_TOLD_BYTES,
    AnswerSoFar,
    BrokenFrames,
    Close,
    Continuation,
    Fail,
    Frame,
    FrameReader,
    Idle,
    Open,
    Tokens,
    continued,
    encode,
    read_continued,
)

text = st.text(max_size=8)
counts = st.integers(0, 2**31)
token_ids = st.lists(st.integers(0, 151_551), max_size=5)
meanings = st.one_of(
    st.builds(
        Open,
        id=text,
        created=counts,
        seeds=st.lists(st.integers(0, 2**63 - 1), max_size=3),
        status=st.integers(100, 599),
        headers=st.lists(st.tuples(text, text), max_size=3),
        num_prompt_tokens=counts,
        fingerprint=text,
        can_continue=st.booleans(),
    ),
    st.builds(
        Tokens,
        ids=st.lists(st.tuples(st.integers(0, 127), token_ids), max_size=3),
        ended=st.lists(st.tuples(st.integers(0, 127), text), max_size=3),
        state=st.binary(max_size=9),
    ),
    st.just(Idle()),
    st.builds(
        Close,
        num_prompt_tokens=counts,
        num_cached_tokens=counts,
        num_reasoning_tokens=counts,
        num_answer_tokens=counts,
        reasons=st.lists(text, max_size=3),
    ),
    st.builds(
        Fail,
        status=st.integers(400, 599),
        message=text,
        type=text,
        param=st.none() | text,
        code=st.none() | text,
        can_continue=st.booleans(),
        retry_after_s=st.none() | st.integers(0, 600),
    ),
)
frames = st.builds(Frame, meaning=meanings, told=st.binary(max_size=40))


@given(st.lists(frames, max_size=6), st.data())
def test_frames_are_the_same_at_every_cut(sent: list[Frame], data: st.DataObject) -> None:
    wire = b"".join(encode(frame) for frame in sent)
    reader, read, rest = FrameReader(), [], wire
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        read += reader.feed(rest[:size])
        rest = rest[size:]
    assert read == sent
    assert reader.is_empty


def test_half_a_frame_is_nothing_yet() -> None:
    wire = encode(Frame(Idle(), b": waiting\n\n"))
    reader = FrameReader()
    assert list(reader.feed(wire[:-1])) == []
    assert not reader.is_empty
    assert list(reader.feed(wire[-1:])) == [Frame(Idle(), b": waiting\n\n")]


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack(">II", 2**31, 0),
        struct.pack(">II", 1, MAX_TOLD_BYTES + 1),
        struct.pack(">II", 3, 0) + b"abc",
        struct.pack(">II", 0, 0),
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_what_is_no_frame_is_broken(wire: bytes) -> None:
    with pytest.raises(BrokenFrames):
        list(FrameReader().feed(wire))


def test_a_meaning_of_a_later_version_is_broken_and_a_field_of_one_is_left_out() -> None:
    def wire(meta: bytes) -> bytes:
        return struct.pack(">II", len(meta), 0) + meta

    with pytest.raises(BrokenFrames, match="means nothing"):
        list(FrameReader().feed(wire(b"\x81\xa1t\xa5later")))
    assert list(FrameReader().feed(wire(b"\x82\xa1t\xa4idle\xa3new\x01"))) == [Frame(Idle())]


continuations = st.builds(
    Continuation,
    id=text,
    created=counts,
    seeds=st.lists(st.integers(0, 2**63 - 1), max_size=3),
    answers=st.lists(st.builds(AnswerSoFar, ids=token_ids, reason=st.none() | text), max_size=3),
    fingerprint=text,
    state=st.binary(max_size=9),
)


@given(continuations, st.binary(max_size=50))
def test_a_continuation_leaves_the_clients_body_as_it_was(continuation: Continuation, body: bytes) -> None:
    assert read_continued(b"".join(continued(continuation, body))) == (continuation, body)


@pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\x00\x00\x00\x09abc", b"\x00\x00\x00\x03abc{}"])
def test_a_continuation_that_is_none_is_broken(data: bytes) -> None:
    with pytest.raises(BrokenFrames):
        read_continued(data)


def test_what_is_good_before_nonsense_is_read() -> None:
    read = []
    with pytest.raises(BrokenFrames):
        read.extend(FrameReader().feed(encode(Frame(Idle())) + b"nonsense in place of frames"))
    assert read == [Frame(Idle())]
