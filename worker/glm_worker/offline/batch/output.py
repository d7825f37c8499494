"""The file of answers: one line each as they come, whole or, after a crash, mended."""

import fcntl
import json
import os
import secrets
from pathlib import Path
from stat import S_ISREG
from types import TracebackType
from typing import Any, Self

import msgspec

from glm_worker.errors import ConfigError
from glm_worker.offline.asgi import Reply
from glm_worker.offline.batch.lines import BatchLine, key_of


class _Response(msgspec.Struct):
    status_code: int


class _Done(msgspec.Struct):
    custom_id: str
    response: _Response


_done = msgspec.json.Decoder(_Done)
_ID = "batch_req_"
_BEGINNING = f'{{"id":"{_ID}'.encode()


class Output:
    """Opens the file, and takes up what an earlier run has left in it.

    Each answer is one write of a whole line. A process that is killed leaves at most one torn line, the last, which the
    next run takes away; its request is computed again. One process at a time has the file.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a file that cannot be written, that another process has, or that is something else."""
        self.path = path
        self.done: set[bytes] = set()  # keys of the requests that have an answer here
        self.refused: set[bytes] = set()  # of these, those whose answer is an error
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
        try:
            if not S_ISREG(os.fstat(self._fd).st_mode):
                raise ConfigError(f"{path} is no regular file; answers are read again to go on")
            self._lock()
            self._take_up()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._fd)
        os.close(self._fd)

    def write(self, request: BatchLine, reply: Reply) -> None:
        """Add the answer to a request. Raises OSError, as of a full disk."""
        line = memoryview(line_of(request.custom_id, reply))
        while line:
            line = line[os.write(self._fd, line) :]
        self._note(request.key, reply.status)

    def _note(self, key: bytes, status: int) -> None:
        self.done.add(key)
        if status != 200:
            self.refused.add(key)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{self.path} is being written by another process") from error

    def _take_up(self) -> None:
        """Note which requests are done, and take a torn last line away, if it is one of ours."""
        whole_bytes = 0
        with open(self._fd, "rb", closefd=False) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    if line[: len(_BEGINNING)] != _BEGINNING[: len(line)]:
                        raise self._strange(number, "it has no end, and did not begin as one")
                    os.ftruncate(self._fd, whole_bytes)
                    break
                try:
                    done = _done.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise self._strange(number, str(error)) from error
                self._note(key_of(done.custom_id), done.response.status_code)
                whole_bytes += len(line)

    def _strange(self, number: int, why: str) -> ConfigError:
        what = f"{self.path}, line {number}, is no answer of a batch: {why}"
        return ConfigError(f"{what}; name another file for the answers")


def line_of(custom_id: str, reply: Reply) -> bytes:
    """Return the line of an answer, as OpenAI's batches write it. The body stands there as the API has it."""
    line: dict[str, Any] = {
        "id": f"{_ID}{secrets.token_hex(12)}",
        "custom_id": custom_id,
        "response": {
            "status_code": reply.status,
            "request_id": reply.request_id,
            "body": json.loads(reply.body),
        },
        "error": None,
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
