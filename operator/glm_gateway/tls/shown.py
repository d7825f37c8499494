"""The certificate that clients are shown, from a folder; read again when it changes.

New handshakes get the new one, and connections that are open go on: a certificate is looked at only at their beginning.
Each pair has a context of its own, to which handshakes are moved: in one context OpenSSL would keep the last
certificate of every kind of key, and go on showing an old one to some. Half a pair makes none, and changes nothing.
"""

import asyncio
import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from glm_gateway.tls.pem import CERTIFICATE, KEY, BadCertificate, files_of, good_until, items_in, no_password

log = logging.getLogger(__name__)

LOOK_S = 1.0


class ShownCertificate:
    """folder: of tls.crt (with what lies between it and its root) and tls.key. context: for a server."""

    def __init__(self, folder: Path) -> None:
        """Read the folder. Raises OSError."""
        self._folder = folder
        self._pair = self._read()
        self._current = self.context = self._context_of(self._pair)
        self.context.sni_callback = self._move
        self._trouble = ""

    def look(self) -> bool:
        """Read the folder; return whether another certificate is shown from now on. One thread at a time."""
        try:
            pair = self._read()
            if pair == self._pair:
                said = ""
            else:
                self._current, self._pair = self._context_of(pair), pair
                self._trouble = ""
                return True
        except OSError as error:
            said = str(error) if isinstance(error, BadCertificate) else error.strerror or type(error).__name__
        if said and said != self._trouble:
            log.error("the certificate in %s cannot be used: %s; the last one is shown on", self._folder, said)
        self._trouble = said
        return False

    async def follow(self, look_s: float = LOOK_S) -> None:
        """Look at the folder until cancelled."""
        while True:
            await asyncio.sleep(look_s)
            await asyncio.to_thread(self.look)

    def _read(self) -> tuple[bytes, bytes]:
        """Return certificate and key. Raises OSError."""
        certificate, key = items_in(self._folder, CERTIFICATE, KEY)
        return certificate, key

    def _move(self, handshake: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:  # noqa: ARG002
        """Let a handshake that begins show what is shown now. Called for each, also where a client names no server."""
        handshake.context = self._current

    def _context_of(self, pair: tuple[bytes, bytes]) -> ssl.SSLContext:
        """Return what shows a pair. Raises BadCertificate."""
        until = good_until(pair[0])
        context = _context()
        with files_of(pair) as (certificate, key):
            try:
                context.load_cert_chain(certificate, key, password=no_password)
            except (ssl.SSLError, ValueError) as error:
                reason = getattr(error, "reason", None) or type(error).__name__
                raise BadCertificate(f"{CERTIFICATE} and {KEY} are no pair: {reason}") from None
        is_over = until <= datetime.now(UTC)
        log.log(
            logging.WARNING if is_over else logging.INFO,
            "clients are shown the certificate in %s, which is good until %s",
            self._folder,
            f"{until:%Y-%m-%d %H:%M}",
        )
        return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context
