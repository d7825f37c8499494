"""The certificate by which workers know us, and who vouches for them, from a folder; read again when it changes.

New connections go by the new ones, and those that are open go on. All three are read at one time and tried together
first, so that half of them changes nothing. An authority that is no more in the folder vouches for nobody.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

from glm_gateway.tls.pem import AUTHORITIES, CERTIFICATE, KEY, BadCertificate, files_of, items_in, no_password

log = logging.getLogger(__name__)

LOOK_S = 1.0


class WorkersCertificate:
    """folder: of ca.crt, tls.crt and tls.key. context: for connections to workers, whichever is good at the moment."""

    def __init__(self, folder: Path) -> None:
        """Read the folder. Raises OSError."""
        self._folder = folder
        self._items = self._read()
        self._trouble = ""
        self.context = _Current(_context(self._items))

    def look(self) -> bool:
        """Read the folder; return whether others are used from now on. One thread at a time."""
        try:
            items = self._read()
            if items != self._items:
                self.context.current = _context(items)
                self._items, self._trouble = items, ""
                log.info("the certificates in %s are new, and used for workers from now on", self._folder)
                return True
            said = ""
        except OSError as error:
            said = str(error) if isinstance(error, BadCertificate) else error.strerror or type(error).__name__
        if said and said != self._trouble:
            log.error("the certificates in %s cannot be used: %s; the last ones are used on", self._folder, said)
        self._trouble = said
        return False

    async def follow(self, look_s: float = LOOK_S) -> None:
        """Look at the folder until cancelled."""
        while True:
            await asyncio.sleep(look_s)
            await asyncio.to_thread(self.look)

    def _read(self) -> list[bytes]:
        return items_in(self._folder, AUTHORITIES, CERTIFICATE, KEY)


class _Current(ssl.SSLContext):
    """A context that pools keep, and that lives longer than certificates: each connection goes by the current one."""

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> "_Current":
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self.check_hostname = False
        self.current = current
        return self

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*args, **options)


def _context(items: list[bytes]) -> ssl.SSLContext:
    """Return a context of what the items say. Raises BadCertificate."""
    authorities, *pair = items
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # groups are known by addresses; the authority signs for nobody else
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
