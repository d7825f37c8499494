"""TLS of the HTTP port: who connects must have a certificate of the same authority as ours.

A folder has ca.crt, tls.crt and tls.key, as a Secret of Kubernetes has them. They are read again when they change, and
each connection gets what is there as it comes: connections that are open stay, and sessions of before are not resumed,
so an authority that is gone lets nobody in any more.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

from glm_worker.errors import ConfigError

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at the files
FILES = ("ca.crt", "tls.crt", "tls.key")


class TlsFolder:
    """The certificates of a folder. Raises ConfigError where they are none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._fault = ""
        try:
            self.context = _Current(self._read())
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"GLM_TLS_FOLDER={folder}: {_sentence(error)}") from error

    async def follow(self) -> None:
        """Read the files again whenever they have changed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Read the files if they have changed. While they cannot be read, those of before count; the log says why."""
        try:
            if self._stamp() == self._seen:
                return
            self.context.current = self._read()
        except (OSError, ssl.SSLError) as error:
            if (fault := _sentence(error)) != self._fault:
                log.error("the certificates in %s cannot be read, those of before count: %s", self._folder, fault)
            self._fault = fault
        else:
            self._fault = ""
            log.info("the certificates in %s are new; connections have them from now on", self._folder)

    def _read(self) -> ssl.SSLContext:
        """Return a context of what the files say. Raises OSError and ssl.SSLError."""
        stamp = self._stamp()  # before: what changes meanwhile is read the next time
        authority, certificate, key = (self._folder / name for name in FILES)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["http/1.1"])
        context.load_verify_locations(cafile=authority)
        context.load_cert_chain(certificate, key, password=_no_password)
        self._seen = stamp
        return context

    def _stamp(self) -> object:
        """Return what is another value when a file is. Raises OSError."""
        found = [(self._folder / name).stat() for name in FILES]
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in found]


class _Current(ssl.SSLContext):
    """A context for a server that lives longer than certificates do: each connection is wrapped by the current one."""

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> "_Current":
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self.current = current
        return self

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*args, **options)


def _no_password() -> str:
    """Refuse a key that is locked: OpenSSL would ask at the terminal."""
    raise ssl.SSLError("tls.key is locked by a password, which nobody can say here")


def _sentence(error: OSError) -> str:
    """Return what is wrong. ssl.SSLError is an OSError, and names no file."""
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or str(error.args[0])
        return f"{', '.join(FILES)} are no certificates with their key: {reason.lower().replace('_', ' ')}"
    return f"{error.filename or 'a file'}: {error.strerror or error}"
