"""What a server says that cannot start."""

import socket

import msgspec

from glm_worker.control import frame_length
from glm_worker.heartbeat import MESSAGE_BYTES
from glm_worker.messages import FromServer, ServerFailed
from glm_worker.supervisor.children.server_process import tell


def told(message: str) -> str:
    ours, theirs = socket.socketpair()
    with ours:
        tell(theirs.detach(), message)
        data = ours.makefile("rb").read()
    assert frame_length(data[:4]) == len(data) - 4
    failed = msgspec.msgpack.decode(data[4:], type=FromServer)
    assert isinstance(failed, ServerFailed)
    return failed.message


def test_a_last_word_arrives() -> None:
    assert told("no such folder") == "no such folder"


def test_a_last_word_that_is_too_long_is_cut_as_that_of_a_rank_is() -> None:
    assert told("x" + "é" * MESSAGE_BYTES) == "x" + "é" * ((MESSAGE_BYTES - 1) // 2)
