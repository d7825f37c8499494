"""Secrets of keys: how they are made, what is kept of them, and how one is found again."""

import hashlib
import secrets

PREFIX = "glm-"
_NUM_BYTES = 32
"""Of chance in a secret: nobody guesses it, so a plain hash of it is as good as a slow one."""

_BLIND = secrets.token_bytes(32)
"""Of this process. What is looked up is blinded with it, so the time that takes tells nothing about hashes."""


def new_secret() -> str:
    """Return the secret of a new key. It is told once, and kept nowhere."""
    return PREFIX + secrets.token_urlsafe(_NUM_BYTES)


def digest_of(secret: str) -> str:
    """Return what is kept of a secret: sha256, 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def blinded(digest: str) -> bytes:
    """Return what a digest is known by in this process."""
    return hashlib.blake2b(digest.encode(), key=_BLIND).digest()
