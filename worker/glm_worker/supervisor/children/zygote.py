"""The zygote: imports torch and the engine once, then forks ranks on command, and what compiles grammars on demand.

Run by the supervisor as `python -m glm_worker.supervisor.children.zygote`. It stays single-threaded and never touches a
device or runs a parallel region, because only what is so may be forked. Its environment holds thread counts of 1 (set
by the supervisor); a rank raises its own after the fork. It talks over an inherited socket pair: commands in, events
out, and when the other end closes, it exits. What it forked dies with it by the kernel's parent-death signal.
"""

import argparse
import contextlib
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from glm_worker.assignment import RankAssignment
from glm_worker.control import encode_frame, frame_length
from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.heartbeat import RankSlot
from glm_worker.settings import Device, WorkerSettings, read_settings
from glm_worker.supervisor.children.compilers import Compilers
from glm_worker.supervisor.children.process import die_with_parent, ignore_stop_signals, is_exiting, name_process
from glm_worker.supervisor.evidence.causes import EXIT_CONFIG, EXIT_CRASH, EXIT_ENGINE, Exit, exit_of
from glm_worker.supervisor.logs import configure_logging

RankTarget = Callable[[WorkerSettings, RankAssignment, RankSlot], None]
ONLY_ON_GPUS = "torch.nn.attention.bias"
"""What attention on GPUs takes (kernels/paged_attention.py): torch's compiler comes with it, a second and 150 MB."""

_log = logging.getLogger("glm_worker.zygote")

# supervisor -> zygote


class ForkRank(msgspec.Struct, frozen=True, tag=True):
    assignment: RankAssignment


class KillRanks(msgspec.Struct, frozen=True, tag=True):
    """SIGKILL to all. Each is answered by its RankExited."""


class Ping(msgspec.Struct, frozen=True, tag=True):
    pass


Command = ForkRank | KillRanks | Ping

# zygote -> supervisor


class ZygoteReady(msgspec.Struct, frozen=True, tag=True):
    import_seconds: float


class RankForked(msgspec.Struct, frozen=True, tag=True):
    rank: int
    generation: str
    pid: int


class RankExited(msgspec.Struct, frozen=True, tag=True):
    """by_us: the rank lived when KillRanks came, so its signal says nothing. message: why it never began."""

    rank: int
    generation: str
    ended: Exit
    by_us: bool
    message: str = ""


class Pong(msgspec.Struct, frozen=True, tag=True):
    pass


Event = ZygoteReady | RankForked | RankExited | Pong


class Zygote:
    """The loop: one command, one connection or one death at a time."""

    def __init__(
        self, settings: WorkerSettings, sock: socket.socket, target: RankTarget, listener: socket.socket
    ) -> None:
        """listener: who connects to it gets a process that compiles grammars."""
        self._settings = settings
        self._sock = sock
        self._target = target
        self._compilers = Compilers(listener, self._fork)
        self._decoder = msgspec.msgpack.Decoder(Command)
        self._ranks: dict[int, RankAssignment] = {}  # by pid
        self._condemned: set[int] = set()  # pids alive when KillRanks came
        # A death must end select() even if it comes just before it: the handler writes to this pipe.
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self, import_seconds: float) -> None:
        """Obey until the supervisor closes its end."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._send(ZygoteReady(import_seconds=import_seconds))
        while True:
            watched: list[socket.socket | int] = [self._sock, self._wake_read, *self._compilers.watched]
            readable, _, _ = select.select(watched, [], [])
            if self._wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if self._sock in readable:
                command = self._receive()
                if command is None:
                    return
                self._obey(command)
            self._compilers.look(readable)

    def _obey(self, command: Command) -> None:
        match command:
            case ForkRank(assignment=assignment):
                self._fork_rank(assignment)
            case KillRanks():
                self._kill_ranks()
            case Ping():
                self._send(Pong())

    def _kill_ranks(self) -> None:
        """SIGKILL to all. Who is dying already does not die of our signal, and may be why the others failed."""
        self._reap()
        self._condemned.update(pid for pid in self._ranks if not is_exiting(pid))
        for pid in self._ranks:
            os.kill(pid, signal.SIGKILL)

    def _fork_rank(self, assignment: RankAssignment) -> None:
        try:
            pid = self._fork(f"glm-rank-{assignment.rank}", lambda: self._run_rank(assignment))
        except OSError as error:  # no process or no memory left: as if the rank had failed at once
            message = f"cannot fork rank {assignment.rank}: {error}"
            self._send(_exited(assignment, Exit(code=EXIT_CRASH), by_us=False, message=message))
            return
        self._ranks[pid] = assignment
        self._send(RankForked(rank=assignment.rank, generation=assignment.generation, pid=pid))

    def _run_rank(self, assignment: RankAssignment) -> int:
        configure_logging(self._settings, f"rank-{assignment.rank} generation={assignment.generation}")
        return run_target(self._target, self._settings, assignment)

    def _fork(self, name: str, body: Callable[[], int]) -> int:
        """Fork a process of this name that runs body and ends with its exit code; return its pid. Raises OSError."""
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(parent, name, body)
        return pid

    def _become(self, parent: int, name: str, body: Callable[[], int]) -> NoReturn:
        """Run in the child. Leaves by os._exit: the zygote's exit handlers and buffers are not the child's."""
        code = EXIT_CRASH
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent(parent)
            self._sock.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._compilers.close()
            name_process(name)
            code = body()
        except Exception:  # noqa: BLE001 - the outermost frame of its process; logged
            _log.exception("%s ended", name)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            assignment = self._ranks.pop(pid, None)
            if assignment is None:  # one that compiles, or that a rank had started and left behind
                self._compilers.ended(pid, os.waitstatus_to_exitcode(status))
                continue
            by_us = pid in self._condemned
            self._condemned.discard(pid)
            self._send(_exited(assignment, exit_of(status), by_us=by_us))

    def _send(self, event: Event) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # then the next receive ends the loop
            self._sock.sendall(encode_frame(event))

    def _receive(self) -> Command | None:
        header = self._read(4)
        body = header and self._read(frame_length(header))
        return self._decoder.decode(body) if body else None

    def _read(self, length: int) -> bytes | None:
        data = bytearray()
        while len(data) < length:
            try:
                part = self._sock.recv(length - len(data))
            except ConnectionResetError:
                return None
            if not part:
                return None
            data += part
        return bytes(data)


def _exited(assignment: RankAssignment, ended: Exit, *, by_us: bool, message: str = "") -> RankExited:
    return RankExited(rank=assignment.rank, generation=assignment.generation, ended=ended, by_us=by_us, message=message)


def run_target(target: RankTarget, settings: WorkerSettings, assignment: RankAssignment) -> int:
    """Run a rank to its end; return its exit code. What went wrong is in its slot and in the log."""
    slot = RankSlot.open(assignment.slots_path, assignment.local_rank)
    slot.begin()
    try:
        target(settings, assignment, slot)
    except ConfigError as error:
        _log.error("rank %d cannot run: %s", assignment.rank, error)
        slot.fail(str(error))
        return EXIT_CONFIG
    except EngineFailed as error:
        _log.error("rank %d failed: %s", assignment.rank, error)
        slot.fail(str(error))
        return EXIT_ENGINE
    except Exception as error:  # noqa: BLE001 - the outermost frame of its process; logged
        _log.exception("rank %d crashed", assignment.rank)
        slot.fail(f"{type(error).__name__}: {error}")
        return EXIT_CRASH
    return 0


def load_target(name: str, device: Device) -> RankTarget:
    """Import module:function, and what ranks on such devices take beside it."""
    module, _, function = name.partition(":")
    target: RankTarget = getattr(importlib.import_module(module), function)
    if device == "cuda":
        importlib.import_module(ONLY_ON_GPUS)
    return target


def main() -> None:
    """Start as a child of the supervisor."""
    parser = argparse.ArgumentParser(prog="glm_worker.supervisor.children.zygote")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="process that this one must not outlive")
    parser.add_argument("--target", required=True, help="module:function that a rank runs")
    parser.add_argument("--compile-fd", type=int, required=True, help="listens for who wants grammars compiled")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    ignore_stop_signals()
    name_process("glm-zygote")
    settings = read_settings()
    configure_logging(settings, "zygote")

    began = time.monotonic()
    target = load_target(arguments.target, settings.device)
    import_seconds = time.monotonic() - began
    num_threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if num_threads != 1:
        _log.error("the zygote has %d threads after its imports; ranks forked from it may hang", num_threads)
    gc.collect()
    gc.freeze()  # or the ranks' first collection would copy every page that they share with the zygote

    sock, listener = socket.socket(fileno=arguments.control_fd), socket.socket(fileno=arguments.compile_fd)
    Zygote(settings, sock, target, listener).serve(import_seconds)


if __name__ == "__main__":
    main()
