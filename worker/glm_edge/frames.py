"""What a worker says to a gateway in place of a plain reply: frames of token ids and the bytes that tell them.

A frame is two lengths of 4 bytes each (big endian), what it means as MessagePack, then bytes for the client. Who reads
a frame passes its bytes on only when all of it is here: a client never gets half an event, and after each frame it is
known which ids it has seen in words (docs/design/0009-gateway.md).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from glm_edge.errors.failure import Failure

FRAMES_HEADER = "x-glm-frames"
"""Of a request: its reply is wanted in frames."""

GATEWAY_HEADER = "x-glm-gateway"
"""Of a request: the token that only the deployment's gateway knows. Without it no reply comes in frames."""

LOOK_HEADER = "x-glm-look"
"""Of a gateway's request for a stored response: nobody has read it by that, and who drains still waits for a reader."""

FRAMES_TYPE = "application/x-glm-frames"
CONTINUED_TYPE = "application/x-glm-continued"

MAX_META_BYTES = 2**22
MAX_TOLD_BYTES = 2**26
"""Of one frame: a whole body of 131,072 tokens with the logprobs of each has some 50 MB."""

_LENGTHS = struct.Struct(">II")


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open", tag_field="t"):
    """The request is admitted. seeds: of its answers. fingerprint: of all that makes text of ids and ids of text.

    can_continue: whether ids are all that another group needs; of a reply with logprobs they are not.
    """

    id: str
    created: int
    seeds: list[int]
    status: int
    headers: list[tuple[str, str]]
    num_prompt_tokens: int
    fingerprint: str
    can_continue: bool = True


class Tokens(msgspec.Struct, frozen=True, kw_only=True, tag="tokens", tag_field="t"):
    """New ids of answers, by index. ended: answers that the engine ended with the last of these, and why.

    state: what the replies count that no id tells; only workers read it.
    """

    ids: list[tuple[int, list[int]]]
    ended: list[tuple[int, str]] = []
    state: bytes = b""


class Idle(msgspec.Struct, frozen=True, kw_only=True, tag="idle", tag_field="t"):
    """Nothing to tell: the bytes are a comment."""


class Close(msgspec.Struct, frozen=True, kw_only=True, tag="close", tag_field="t"):
    """The reply is complete. reasons: why each answer ended. Tokens are counted as generated, told or not."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_reasoning_tokens: int
    num_answer_tokens: int
    reasons: list[str]


class Fail(msgspec.Struct, frozen=True, kw_only=True, tag="fail", tag_field="t"):
    """The reply ends here. The bytes say so in a stream; a whole reply's error is written by who reads this."""

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None
    can_continue: bool = False

    @property
    def failure(self) -> Failure:
        return Failure(self.status, self.message, self.type, self.param, self.code, self.retry_after_s)


Meaning = Open | Tokens | Idle | Close | Fail


class Frame(msgspec.Struct, frozen=True):
    """told: bytes for the client, whole events only."""

    meaning: Meaning
    told: bytes = b""


class BrokenFrames(ValueError):
    """What was read is not frames."""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Meaning] = msgspec.msgpack.Decoder(Meaning)


def encode(frame: Frame) -> bytes:
    """Return a frame as it goes over the wire."""
    meta = _encoder.encode(frame.meaning)
    return b"".join((_LENGTHS.pack(len(meta), len(frame.told)), meta, frame.told))


@dataclass
class FrameReader:
    """Reads frames from bytes that come in any pieces."""

    _unread: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now. Raises BrokenFrames behind the last good one."""
        if self._unread:
            self._unread += data
            while (frame_and_end := _frame_at(self._unread, 0)) is not None:
                frame, end = frame_and_end
                del self._unread[:end]
                yield frame
            return
        begin = 0
        try:  # most often whole frames come, and they are read where they lie
            while (frame_and_end := _frame_at(data, begin)) is not None:
                frame, begin = frame_and_end
                yield frame
        finally:
            self._unread += data[begin:]

    @property
    def is_empty(self) -> bool:
        """Whether no part of a frame waits for the rest of it."""
        return not self._unread


def _frame_at(data: bytes | bytearray, at: int) -> tuple[Frame, int] | None:
    """Return the frame that begins there, and where it ends; None: it is not complete."""
    begin = at + _LENGTHS.size
    if len(data) < begin:
        return None
    meta_len, told_len = _LENGTHS.unpack_from(data, at)
    if meta_len > MAX_META_BYTES or told_len > MAX_TOLD_BYTES:
        raise BrokenFrames(f"a frame of {meta_len} and {told_len} bytes; at most {MAX_META_BYTES} and {MAX_TOLD_BYTES}")
    middle, end = begin + meta_len, begin + meta_len + told_len
    if len(data) < end:
        return None
    try:
        meaning = _decoder.decode(bytes(data[begin:middle]))
    except msgspec.MsgspecError as error:
        raise BrokenFrames(f"a frame that means nothing: {error}") from error
    return Frame(meaning, bytes(data[middle:end])), end


class AnswerSoFar(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as far as its client has seen it. reason: why the engine ended it, if it has."""

    ids: list[int]
    reason: str | None = None


class Continuation(msgspec.Struct, frozen=True, kw_only=True):
    """What another group needs to go on with a reply as if it had begun it: read before the client's own body."""

    id: str
    created: int
    seeds: list[int]
    answers: list[AnswerSoFar]
    fingerprint: str
    state: bytes = b""


_continuations: msgspec.msgpack.Decoder[Continuation] = msgspec.msgpack.Decoder(Continuation)
_LENGTH = struct.Struct(">I")


def continued(continuation: Continuation, body: bytes) -> list[bytes]:
    """Return a body of CONTINUED_TYPE in parts: the continuation, then what the client had sent."""
    packed = _encoder.encode(continuation)
    return [_LENGTH.pack(len(packed)), packed, body]


def read_continued(data: bytes) -> tuple[Continuation, bytes]:
    """Return the two parts of a body of CONTINUED_TYPE. Raises BrokenFrames."""
    if len(data) < _LENGTH.size:
        raise BrokenFrames("a continuation ends before it begins")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if end > len(data):
        raise BrokenFrames(f"a continuation of {length} bytes, of which {len(data) - _LENGTH.size} are here")
    try:
        return _continuations.decode(data[_LENGTH.size : end]), data[end:]
    except msgspec.MsgspecError as error:
        raise BrokenFrames(f"a continuation that means nothing: {error}") from error
