"""The promises that were put to this group, kept for servers that start later and for the next life of this process.

The file lies beside the folders of single lives, so that a container that starts again in the same pod finds it; it
goes with the pod. What cannot be read or written there costs a repetition: the operator sees the digest at /group.
"""

import logging
import os
from pathlib import Path

import msgspec

from glm_worker.errors import RequestRefused
from glm_worker.messages import Slo
from glm_worker.server.slo import parse_slo, slo_digest

_log = logging.getLogger("glm_worker.supervisor")


class KeptSlo:
    """The last promises, if there ever were any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.slo = self._read()

    @property
    def digest(self) -> str | None:
        return None if self.slo is None else slo_digest(self.slo)

    def keep(self, slo: Slo) -> str:
        """Take these promises in place of those before; return their digest."""
        self.slo = slo
        written = self._path.with_suffix(f".{os.getpid()}")
        try:
            written.write_bytes(msgspec.json.encode(slo))
            written.replace(self._path)  # whole or not at all
        except OSError as error:
            _log.warning("cannot keep the promises in %s: %s", self._path, error)
        return slo_digest(slo)

    def _read(self) -> Slo | None:
        try:
            return parse_slo(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, RequestRefused) as error:
            _log.warning("the promises kept in %s cannot be read: %s", self._path, error)
            return None
