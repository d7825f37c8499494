"""Owns the KV blocks: which are free, and which sequence holds which.

A block belongs to at most one sequence. Invariant, asserted by check(): every block is either free or in exactly one
block table, and none is in two places.
"""

from collections import deque

from glm_worker.errors import EngineFailed


class BlockManager:
    """The free blocks and the block tables. Freed blocks are reused oldest first; equal calls give equal blocks."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = deque(range(num_blocks))
        self._tables: dict[str, list[int]] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def table(self, request_id: str) -> list[int]:
        """Return the blocks of a sequence in order of position. It is the live table: read it before the next grow."""
        return self._tables.get(request_id, [])

    def num_missing(self, request_id: str, num_tokens: int) -> int:
        """Return how many blocks more a sequence needs to hold num_tokens."""
        return max(0, blocks_for(num_tokens, self.block_size) - len(self.table(request_id)))

    def grow(self, request_id: str, num_tokens: int) -> bool:
        """Give a sequence the blocks for num_tokens. False, and nothing is changed, when too few are free."""
        missing = self.num_missing(request_id, num_tokens)
        if missing > len(self._free):
            return False
        if missing:
            table = self._tables.setdefault(request_id, [])
            table.extend(self._free.popleft() for _ in range(missing))
        return True

    def free(self, request_id: str) -> None:
        """Take back all blocks of a sequence; one that holds none is fine."""
        self._free.extend(self._tables.pop(request_id, ()))

    def holders(self) -> set[str]:
        """Return the ids of the sequences that hold blocks."""
        return set(self._tables)

    def check(self) -> None:
        """Raise EngineFailed unless every block is in exactly one place."""
        places = [*self._free, *(block for table in self._tables.values() for block in table)]
        if sorted(places) != list(range(self.num_blocks)):
            raise EngineFailed(f"KV blocks do not add up: {len(self._free)} free, tables {self._tables}")


def blocks_for(num_tokens: int, block_size: int) -> int:
    """Return how many blocks hold num_tokens."""
    return -(-num_tokens // block_size)
