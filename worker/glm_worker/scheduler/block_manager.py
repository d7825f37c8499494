"""Owns the KV blocks: which are free, which sequences hold which, and which keep what a sequence has left.

A full block may have a key that says what it holds (prefix.py). Sequences whose tokens begin alike share such blocks;
nobody writes to a block that has one. When nobody holds it any more it stays, cached, until its room is needed: the one
that was let go first is evicted first. All decisions follow from the calls alone, so ranks that get the same calls
have the same blocks.

Invariant, asserted by check(): every block is free, cached, or held by as many tables as it counts references; a key
names one block; what is held is never evicted.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from glm_worker.errors import EngineFailed


class BlockManager:
    """Freed blocks are reused oldest first, and cached ones after them; equal calls give equal blocks."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = deque(range(num_blocks))
        self._cached: dict[int, None] = {}  # held by nobody, with a key; let go first, first
        self._tables: dict[str, list[int]] = {}
        self._num_refs = [0] * num_blocks  # tables that a block is in
        self._key_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}
        self._broken: set[int] = set()  # held still, by others than the sequence that broke
        self._unclean: list[int] = []  # broken ones that nobody holds any more; to be zeroed

    @property
    def num_free(self) -> int:
        """Blocks that a sequence can get: what is only cached is in nobody's way."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    def table(self, request_id: str) -> list[int]:
        """Return the blocks of a sequence in order of position. It is the live table: read it before the next grow."""
        return self._tables.get(request_id, [])

    def has(self, key: bytes | None) -> bool:
        """Whether a block has this key."""
        return key in self._block_of

    def found(self, keys: Iterable[bytes]) -> list[int]:
        """Return the blocks with these keys, up to the first that no block has."""
        blocks = []
        for key in keys:
            block = self._block_of.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def num_to_take(self, num_tokens: int, found: Sequence[int] = ()) -> int:
        """Return how many of the free blocks it takes to hold num_tokens, of which `found` has the first."""
        return blocks_for(num_tokens, self.block_size) - sum(self._num_refs[block] > 0 for block in found)

    def admit(self, request_id: str, num_tokens: int, found: Sequence[int] = ()) -> bool:
        """Give a sequence that has none the blocks for num_tokens, those of `found` first, as found() has just
        returned them. False, and nothing is changed, when too few are free.
        """
        if self.num_to_take(num_tokens, found) > self.num_free:
            return False
        for block in found:
            self._cached.pop(block, None)
            self._num_refs[block] += 1
        table = self._tables[request_id] = list(found)
        table += [self._take() for _ in range(blocks_for(num_tokens, self.block_size) - len(found))]
        return True

    def grow(self, request_id: str, num_tokens: int) -> bool:
        """Give a sequence the blocks for num_tokens. False, and nothing is changed, when too few are free."""
        missing = blocks_for(num_tokens, self.block_size) - len(self._tables.get(request_id, ()))
        if missing > self.num_free:
            return False
        if missing > 0:
            self._tables.setdefault(request_id, []).extend([self._take() for _ in range(missing)])
        return True

    def publish(self, block: int, key: bytes) -> None:
        """Let others find a held block that is full and computed. Of blocks that hold the same, the first is found."""
        if key not in self._block_of and block not in self._broken:
            self._block_of[key] = block
            self._key_of[block] = key

    def free(self, request_id: str, *, is_broken: bool = False) -> None:
        """Take back all blocks of a sequence; one that holds none is fine.

        The end of the sequence is let go before its beginning, which others are likelier to share. is_broken: what was
        computed may not be finite. Nobody finds these blocks any more, and once nobody holds them they are unclean.
        """
        for block in reversed(self._tables.pop(request_id, ())):
            if is_broken:
                self._forget(block)
                self._broken.add(block)
            self._num_refs[block] -= 1
            if self._num_refs[block]:
                continue
            if block in self._broken:
                self._broken.remove(block)
                self._unclean.append(block)
            if block in self._key_of:
                self._cached[block] = None
            else:
                self._free.append(block)

    def take_unclean(self) -> tuple[int, ...]:
        """Return the blocks that must be zeroed before the next step; they are said once, and may be in use by then."""
        unclean, self._unclean = tuple(self._unclean), []
        return unclean

    def holders(self) -> set[str]:
        """Return the ids of the sequences that hold blocks."""
        return set(self._tables)

    def check(self) -> None:
        """Raise EngineFailed unless every block is in exactly one place and is what its place says."""
        refs = Counter(block for table in self._tables.values() for block in table)
        places = sorted([*self._free, *self._cached, *refs])
        claims = {
            "every block is free, cached or held": places == list(range(self.num_blocks)),
            "references are those of the tables": self._num_refs == [refs[block] for block in range(self.num_blocks)],
            "no table has a block twice": all(len(set(table)) == len(table) for table in self._tables.values()),
            "a key names one block": {block: key for key, block in self._block_of.items()} == self._key_of
            and len(self._block_of) == len(self._key_of),
            "cached blocks have keys and free ones none": self._cached.keys() <= self._key_of.keys()
            and self._key_of.keys().isdisjoint(self._free),
            "broken blocks are held and not found": self._broken <= refs.keys()
            and self._broken.isdisjoint(self._key_of),
        }
        if broken := [claim for claim, holds in claims.items() if not holds]:
            raise EngineFailed(
                f"KV blocks do not add up: {'; '.join(broken)}: {len(self._free)} free, {len(self._cached)} cached,"
                f" tables {self._tables}"
            )

    def _take(self) -> int:
        if self._free:
            block = self._free.popleft()
        else:
            block = next(iter(self._cached))
            del self._cached[block]
            self._forget(block)
        self._num_refs[block] = 1
        return block

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._block_of[key]


def blocks_for(num_tokens: int, block_size: int) -> int:
    """Return how many blocks hold num_tokens."""
    return -(-num_tokens // block_size)
