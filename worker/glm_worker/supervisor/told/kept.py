"""What was put to this group, kept for servers that start later and for the next life of this process.

A file lies beside the folders of single lives, so that a container that starts again in the same pod finds it; it goes
with the pod. What cannot be read or written there costs a repetition: the operator sees the digest at /group.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from glm_worker.errors import RequestRefused
from glm_worker.messages import Policy, Slo
from glm_worker.server.policy import parse_policy, policy_digest
from glm_worker.server.slo import parse_slo, slo_digest

_log = logging.getLogger("glm_worker.supervisor")

Value = TypeVar("Value", bound=msgspec.Struct)


class Kept(Generic[Value]):
    """The last value of a kind that was put, if there ever was one."""

    def __init__(
        self, path: Path, what: str, parse: Callable[[bytes], Value], digest_of: Callable[[Value], str]
    ) -> None:
        """what: as in log lines."""
        self._path = path
        self._what = what
        self._parse = parse
        self._digest_of = digest_of
        self.value: Value | None = self._read()

    @property
    def digest(self) -> str | None:
        return None if self.value is None else self._digest_of(self.value)

    def keep(self, value: Value) -> str:
        """Take this value in place of the one before; return its digest."""
        self.value = value
        written = self._path.with_suffix(f".{os.getpid()}")
        try:
            written.write_bytes(msgspec.json.encode(value))
            written.replace(self._path)  # whole or not at all
        except OSError as error:
            _log.warning("cannot keep the %s in %s: %s", self._what, self._path, error)
        return self._digest_of(value)

    def _read(self) -> Value | None:
        try:
            return self._parse(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, RequestRefused) as error:
            _log.warning("the %s kept in %s cannot be read: %s", self._what, self._path, error)
            return None


def kept_slo(path: Path) -> Kept[Slo]:
    """Return the promises kept in a file."""
    return Kept(path, "promises", parse_slo, slo_digest)


def kept_policy(path: Path) -> Kept[Policy]:
    """Return the policy kept in a file."""
    return Kept(path, "policy", parse_policy, policy_digest)
