"""One safetensors file: which tensors it has, where they lie in it, and reading any of its bytes into memory.

Files are read, not mapped. Of a mapped file each page costs a fault, then a copy, and is counted beside that copy; and
a file that gets shorter while it is read ends a process that has mapped it, with no word about the file.
"""

import json
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from glm_worker.errors import ConfigError

_LENGTH_BYTES = 8  # of the length of the header, with which a file begins


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file has it. Its elements lie from byte `begin` of the file on, the last dim innermost."""

    dtype: str  # as the format spells it: F32, BF16, …
    shape: tuple[int, ...]
    begin: int


class SafetensorsFile:
    """Open from the first moment until nobody refers to it. Any number of threads may read at once."""

    def __init__(self, path: Path) -> None:
        """Raise ConfigError if the file is not there or not whole."""
        self.path = path
        try:
            with safe_open(path, framework="pt"):
                pass  # which sees to it that the header is sound and that its tensors cover the file
            self._descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise ConfigError(f"{path} is missing; weights are read from safetensors files only") from error
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path} is damaged or cut off: {error}") from error
        weakref.finalize(self, os.close, self._descriptor)
        self.tensors = self._read_header()

    def read_into(self, memory: memoryview, begin: int) -> None:
        """Fill memory with the bytes of the file from begin on. Raises ConfigError where the file ends before."""
        while memory:
            num_read = os.preadv(self._descriptor, [memory], begin)
            if num_read == 0:
                raise ConfigError(f"{self.path} is damaged or cut off: it ends at byte {begin}, within a tensor")
            memory, begin = memory[num_read:], begin + num_read

    def _read_header(self) -> dict[str, StoredTensor]:
        length = bytearray(_LENGTH_BYTES)
        self.read_into(memoryview(length), 0)
        header = bytearray(int.from_bytes(length, "little"))
        self.read_into(memoryview(header), _LENGTH_BYTES)
        first = _LENGTH_BYTES + len(header)
        return {
            name: StoredTensor(entry["dtype"], tuple(entry["shape"]), first + entry["data_offsets"][0])
            for name, entry in json.loads(header).items()
            if name != "__metadata__"
        }
