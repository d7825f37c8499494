"""The HTTP server's process, up to the point where it is the server package's business.

Run by the supervisor as `python -m glm_worker.supervisor.children.server_process`. What stops the server at its start
is told over the control link before the process ends, so that it can be shown as a sentence and not a number.
"""

import argparse
import importlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from types import ModuleType

import msgspec

from glm_worker.control import HEADER_BYTES, ProtocolError, encode_frame, frame_length
from glm_worker.errors import ConfigError
from glm_worker.heartbeat import cut
from glm_worker.messages import MetricsReply, MetricsRequest, ServerFailed
from glm_worker.settings import WorkerSettings, read_settings
from glm_worker.supervisor.children.process import die_with_parent, ignore_stop_signals, name_process
from glm_worker.supervisor.evidence.causes import EXIT_CONFIG, EXIT_CRASH
from glm_worker.supervisor.logs import configure_logging

ServerTarget = Callable[[WorkerSettings, int], None]
_log = logging.getLogger("glm_worker.server")
_QUESTION_BYTES = 256  # more than a question for metrics takes


def main() -> int:
    """Start as a child of the supervisor; return the exit code."""
    parser = argparse.ArgumentParser(prog="glm_worker.supervisor.children.server_process")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="process that this one must not outlive")
    parser.add_argument("--target", required=True, help="module:function that serves")
    parser.add_argument("--stand-by", action="store_true", help="import all, and begin when the supervisor speaks")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    ignore_stop_signals()
    name_process("glm-next-server" if arguments.stand_by else "glm-server")
    settings = read_settings()
    configure_logging(settings, "server")
    last_word = os.dup(arguments.control_fd)  # the server closes its own
    try:
        module, _, function = arguments.target.partition(":")
        imported = importlib.import_module(module)
        target: ServerTarget = getattr(imported, function)
        if arguments.stand_by:
            prepare_for(settings, imported)
            name_process("glm-stand-by")
            if not wait_for_a_word(arguments.control_fd):
                return 0
            name_process("glm-server")
        target(settings, arguments.control_fd)
    except ConfigError as error:
        _log.error("the server cannot run: %s", error)
        tell(last_word, str(error))
        return EXIT_CONFIG
    except Exception as error:  # noqa: BLE001 - the outermost frame of its process; logged
        _log.exception("the server crashed")
        tell(last_word, f"{type(error).__name__}: {error}")
        return EXIT_CRASH
    return 0


def prepare_for(settings: WorkerSettings, module: ModuleType) -> None:
    """Let the module of the target read ahead, if it has a prepare. What stops that stops the server later."""
    if (prepare := getattr(module, "prepare", None)) is None:
        return
    try:
        prepare(settings)
    except (ConfigError, OSError) as error:
        _log.warning("nothing is read ahead for the next server: %s", error)


def wait_for_a_word(control_fd: int) -> bool:
    """Wait until the supervisor says something, and leave it there to be read; False: it has gone.

    That it asks for metrics is no such word: it asks whether this process lives, and there are none yet.
    """
    with socket.socket(fileno=os.dup(control_fd)) as sock:
        sock.setblocking(True)
        try:
            while said := sock.recv(_QUESTION_BYTES, socket.MSG_PEEK):
                if (question := _question(said)) is None:
                    return True
                sock.recv(len(encode_frame(question)))
                sock.sendall(encode_frame(MetricsReply(question.id, "")))
        except OSError:
            pass
        return False


def _question(said: bytes) -> MetricsRequest | None:
    """Return the question for metrics with which this begins, if it does. It was sent at once, so it is there whole."""
    header, rest = said[:HEADER_BYTES], said[HEADER_BYTES:]
    try:
        return msgspec.msgpack.decode(rest[: frame_length(header)], type=MetricsRequest)
    except (ProtocolError, msgspec.DecodeError):
        return None


def tell(control_fd: int, message: str) -> None:
    """Say why the server cannot go on. Closes the descriptor."""
    with socket.socket(fileno=control_fd) as sock:
        sock.setblocking(True)
        try:
            sock.sendall(encode_frame(ServerFailed(message=cut(message))))
        except OSError as error:
            _log.error("cannot tell the supervisor: %s", error)


if __name__ == "__main__":
    sys.exit(main())
