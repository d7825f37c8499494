"""A server's process: what it reads ahead and waits for as it stands by, and what it says that cannot start."""

import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from glm_worker.control import encode_frame, frame_length
from glm_worker.heartbeat import MESSAGE_BYTES
from glm_worker.messages import FromServer, MetricsReply, MetricsRequest, ServerFailed, WatchLoad
from glm_worker.models import resolve
from glm_worker.server import main
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.server_process import prepare_for, tell, wait_for_a_word

LIMIT_S = 60.0


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


def test_what_was_read_ahead_is_what_is_served_unless_the_folder_has_changed(tmp_path: Path) -> None:
    folder = shutil.copytree(resolve("builtin://glm-nano"), tmp_path / "model")
    settings = WorkerSettings(model=str(folder))
    prepare_for(settings, main)
    prepared = main._prepared[folder]
    assert main._checkpoint(folder, settings) is prepared
    prepare_for(settings, main)
    prepared = main._prepared[folder]
    (folder / "generation_config.json").write_text('{"temperature": 0.25}')
    read = main._checkpoint(folder, settings)
    assert read is not prepared
    assert read.defaults.temperature == 0.25


def test_a_model_that_cannot_be_read_ahead_stops_nobody_who_stands_by(tmp_path: Path) -> None:
    prepare_for(WorkerSettings(model=str(tmp_path)), main)
    assert main._prepared == {}


def test_one_that_stands_by_begins_with_the_first_word_and_leaves_it_to_be_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"word")
        assert wait_for_a_word(theirs.fileno())
        assert theirs.recv(10) == b"word"


def test_one_that_stands_by_says_that_it_lives_as_often_as_it_is_asked_and_then_begins() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT_S)
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        begins = pool.submit(wait_for_a_word, theirs.fileno())
        for number in (1, 70_000):
            ours.sendall(encode_frame(MetricsRequest(number)))
            assert ours.recv(100) == encode_frame(MetricsReply(number, ""))
        ours.sendall(encode_frame(WatchLoad(is_on=True)))
        assert begins.result()
        assert theirs.recv(100) == encode_frame(WatchLoad(is_on=True))


def test_a_question_that_comes_with_the_first_word_is_answered_before_it() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT_S)
    with ours, theirs:
        ours.sendall(encode_frame(MetricsRequest(1)) + encode_frame(WatchLoad(is_on=True)))
        assert wait_for_a_word(theirs.fileno())
        assert ours.recv(100) == encode_frame(MetricsReply(1, ""))
        assert theirs.recv(100) == encode_frame(WatchLoad(is_on=True))


def test_one_that_stands_by_ends_with_its_supervisor() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        assert not wait_for_a_word(theirs.fileno())
