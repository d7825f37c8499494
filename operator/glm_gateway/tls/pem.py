"""Certificates and keys as a mounted Secret has them, in PEM form."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cryptography import x509

MAX_BYTES = 2**20
CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
_DATA = "..data"  # of a mounted Secret: the link through which all of its items are found


class BadCertificate(OSError):
    """What lies in the folder is no certificate with its key."""


def items_in(folder: Path, *names: str) -> list[bytes]:
    """Return the items of a folder, all of one time. Raises OSError."""
    root = folder
    if (root / _DATA).is_symlink():
        root = (root / _DATA).resolve()
    found = []
    for name in names:
        with (root / name).open("rb") as file:
            found.append(file.read(MAX_BYTES))
    return found


def no_password() -> str:
    """Answer for a key that is encrypted: without this, OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")


def good_until(certificate: bytes) -> datetime:
    try:
        return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except ValueError:
        raise BadCertificate(f"{CERTIFICATE} is no certificate in PEM form") from None


@contextmanager
def files_of(pair: tuple[bytes, bytes]) -> Iterator[list[str]]:
    """Give both as files of memory: the ssl module reads files only, and these nobody changes in between."""
    numbers = []
    try:
        for name, data in zip((CERTIFICATE, KEY), pair, strict=True):
            numbers.append(os.memfd_create(name, os.MFD_CLOEXEC))
            os.write(numbers[-1], data)
        yield [f"/proc/self/fd/{number}" for number in numbers]
    finally:
        for number in numbers:
            os.close(number)
