"""The certificate by which workers know us, and who vouches for them, from a folder; read again when it changes.

New connections go by the new ones, and those that are open go on. All three are read at one time and tried together
first, so that half of them changes nothing. An authority that is no more in the folder vouches for nobody. The folder
may be empty at first: groups that speak TLS are not spoken to until there is something in it.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from glm_gateway.tls.pem import AUTHORITIES, CERTIFICATE, KEY, BadCertificate, files_of, items_in, no_password

log = logging.getLogger(__name__)

LOOK_S = 1.0


class WorkersCertificate:
    """folder: of ca.crt, tls.crt and tls.key. context: for connections to workers, whichever is good at the moment."""

    def __init__(self, folder: Path) -> None:
        """Read the folder."""
        self._folder = folder
        self._items: list[bytes] = []
        self._trouble = ""
        self.context = ToWorkers()
        self.look()

    def look(self) -> bool:
        """Read the folder; return whether others are used from now on. One thread at a time."""
        try:
            items = self._read()
            if items != self._items:
                self.context.current = _Contexts(_context(items, asks_name=True), _context(items, asks_name=False))
                self._items, self._trouble = items, ""
                log.info("the certificates in %s are new, and used for workers from now on", self._folder)
                return True
            said = ""
        except OSError as error:
            said = str(error) if isinstance(error, BadCertificate) else error.strerror or type(error).__name__
        if said and said != self._trouble:
            so = "the last ones are used on" if self._items else "groups that speak TLS get nothing"
            level = logging.ERROR if self._items else logging.WARNING  # at first they may be on their way
            log.log(level, "the certificates in %s cannot be used: %s; %s", self._folder, said, so)
        self._trouble = said
        return False

    async def follow(self, look_s: float = LOOK_S) -> None:
        """Look at the folder until cancelled."""
        while True:
            await asyncio.sleep(look_s)
            was_ready = self.context.is_ready
            if await asyncio.to_thread(self.look) and not was_ready:
                for told in self.context.when_ready:
                    told()

    def _read(self) -> list[bytes]:
        return items_in(self._folder, AUTHORITIES, CERTIFICATE, KEY)


class _Contexts(NamedTuple):
    """Of the same certificates."""

    asking_name: ssl.SSLContext
    asking_none: ssl.SSLContext


class ToWorkers(ssl.SSLContext):
    """A context that pools keep, and that lives longer than certificates: each connection goes by the current ones.

    A connection that names a server takes no certificate of another one; that of a group that a file names by its
    address alone is taken whatever its name is, as the authority signs for nobody but gateways and workers.
    when_ready: called as the first certificates come.
    """

    current: _Contexts | None
    when_ready: list[Callable[[], None]]

    def __new__(cls) -> "ToWorkers":
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self.check_hostname = False
        self.current, self.when_ready = None, []
        return self

    @property
    def is_ready(self) -> bool:
        return self.current is not None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        assert self.current is not None, "a group that speaks TLS is known before there are certificates"
        context = self.current.asking_name if server_hostname else self.current.asking_none
        return context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def _context(items: list[bytes], *, asks_name: bool) -> ssl.SSLContext:
    """Return a context of what the items say. Raises BadCertificate."""
    authorities, *pair = items
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = asks_name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise BadCertificate(f"{AUTHORITIES} has no certificate in PEM form") from None
    with files_of((pair[0], pair[1])) as (certificate, key):
        try:
            context.load_cert_chain(certificate, key, password=no_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise BadCertificate(f"{CERTIFICATE} and {KEY} are no pair: {reason}") from None
    return context
