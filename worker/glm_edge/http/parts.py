"""Bytes that come in parts and are taken together."""


class Parts:
    """Stands for the bytearray in which uvicorn gathers a body, and copies each byte once, or not at all: it is only
    added to, measured, and made into bytes.
    """

    __slots__ = ("_len", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._len = 0

    def __iadd__(self, part: bytes) -> "Parts":
        self._parts.append(part)
        self._len += len(part)
        return self

    def __len__(self) -> int:
        return self._len

    def __bytes__(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
