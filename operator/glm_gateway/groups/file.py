"""Groups from a JSON file, in local mode: {"groups": [{"name": "nano-g0", "host": "127.64.0.1", "port": 8000}]}.

ready (true) and leaving (false) of a group are what is seen of it from outside; the group itself knows better.
Write a new file beside it and rename that over it: then nobody reads half of one.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from glm_gateway.groups.found import MANAGEMENT_PORT, BadSource, Found

log = logging.getLogger(__name__)

LOOK_S = 0.5
MAX_PORT = 65535
MAX_BYTES = 2**20


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    host: str
    port: int
    management_port: int = MANAGEMENT_PORT
    is_ready: bool = msgspec.field(default=True, name="ready")
    is_leaving: bool = msgspec.field(default=False, name="leaving")
    speaks_tls: bool = msgspec.field(default=False, name="tls")
    deployment: str = ""
    revision: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    groups: list[_Group]


def groups_in(text: bytes) -> list[Found]:
    """Return the groups that a file names, in its order. Raises BadSource with what is wrong."""
    try:
        read = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadSource(str(error)) from error
    seen: set[str] = set()
    for group in read.groups:
        if not group.name or group.name in seen:
            raise BadSource(f"the name of each group must be there and its own, and {group.name!r} is not")
        if not group.host:
            raise BadSource(f"group {group.name!r} has no host")
        for port in (group.port, group.management_port):
            if not 1 <= port <= MAX_PORT:
                raise BadSource(f"group {group.name!r} has port {port}; ports are 1 to {MAX_PORT}")
        seen.add(group.name)
    return [Found(**msgspec.structs.asdict(group)) for group in read.groups]


class FileSource:
    """take: gets the groups, each time that they are others."""

    def __init__(self, path: Path, take: Callable[[list[Found]], None]) -> None:
        self._path = path
        self._take = take
        self._seen: tuple[int, int, int] | None = None
        self._found: list[Found] | None = None
        self.problem = ""  # what is wrong with the file now, in a sentence

    async def run(self) -> None:
        """Look until cancelled, every half second."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Read the file if it is another one. What is wrong with it is said once, and what was known holds on."""
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_ino, status.st_size
            if seen == self._seen:
                return
            if status.st_size > MAX_BYTES:
                raise BadSource(f"it has {status.st_size} bytes; {MAX_BYTES} are read")
            found = groups_in(self._path.read_bytes())
        except BadSource as error:
            self._seen = seen
            self._complain(str(error))
            return
        except OSError as error:
            self._seen = None
            self._complain(error.strerror or os.strerror(error.errno or 0))
            return
        self._seen, self.problem = seen, ""
        if found != self._found:
            self._found = found
            self._take(found)

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.error("the groups in %s cannot be read, so those known before hold on: %s", self._path, problem)
        self.problem = problem
