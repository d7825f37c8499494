"""Which prefixes a group is believed to have in its KV cache: a cache of the same size that forgets as the group does.

Blocks are used from the last of a prompt to its first. So the first are always the youngest, and what is forgotten is
the end of the prompt that was used longest ago. Of any prompt a group holds the blocks up to some one: none is missing
between two.
"""

from collections import OrderedDict
from itertools import repeat

from glm_gateway.routing.prefix import BLOCKS_A_SIZE, ENDS, SIZES, Prefix

MAX_AGE_S = 3600.0
"""What was not used for so long is not believed in. Others fill a group as well, and no gateway sees them."""

MAX_BLOCKS_HELD = 65_536
"""Of a group: 12 MB in this process. Only a KV cache of over 8 M tokens holds more blocks of the finest grain."""


class Holdings:
    """The blocks of one group, oldest first. Sizes are in bytes of text."""

    __slots__ = ("_used", "capacity_bytes", "num_bytes")

    def __init__(self, capacity_bytes: float) -> None:
        self.capacity_bytes = capacity_bytes
        self.num_bytes = 0
        self._used: OrderedDict[int, tuple[float, int]] = OrderedDict()  # time of last use, and the bytes of the block

    def __len__(self) -> int:
        return len(self._used)

    @property
    def free_bytes(self) -> float:
        """How many bytes have a place without pushing out others."""
        return max(0.0, self.capacity_bytes - self.num_bytes)

    def num_known(self, prefix: Prefix, now: float) -> int:
        """Return how many blocks from the beginning of a prompt the group has computed and not yet forgotten."""
        return self._num_known(prefix.hashes, now - MAX_AGE_S)

    def known_bytes(self, prefix: Prefix, now: float) -> int:
        """Return how many bytes these blocks have."""
        num_known = self.num_known(prefix, now)
        return ENDS[num_known - 1] if num_known else 0

    def _num_known(self, hashes: tuple[int, ...], oldest_s: float) -> int:
        used = self._used
        if not hashes or hashes[0] not in used:
            return 0
        low, high = 0, len(hashes)  # blocks before low are held, those from high on are not
        probe = high - 1  # the whole of it first: so it is when a turn is asked again, or a prompt is hot
        while low < high:
            entry = used.get(hashes[probe])
            if entry is not None and entry[0] >= oldest_s:
                low = probe + 1
            else:
                high = probe
            probe = (low + high) // 2
        return low

    def use(self, prefix: Prefix, now: float) -> None:
        """Note that the group computes a prompt, or uses what it has of it; forget what that pushes out."""
        used, hashes, oldest_s = self._used, prefix.hashes, now - MAX_AGE_S
        while used and next(iter(used.values()))[0] < oldest_s:
            self.num_bytes -= used.popitem(last=False)[1][1]
        num_known = self._num_known(hashes, oldest_s)
        entries: list[tuple[float, int]] = []
        for size in SIZES:
            entries += repeat((now, size), BLOCKS_A_SIZE)
        last_first = entries[: len(hashes)][::-1]
        num_new = len(hashes) - num_known
        used.update(zip(hashes[::-1][:num_new], last_first))  # noqa: B905 - the others are known
        for each, entry in zip(hashes[num_known - 1 :: -1] if num_known else (), last_first[num_new:], strict=True):
            used[each] = entry
            used.move_to_end(each)
        if num_new:
            self.num_bytes += ENDS[len(hashes) - 1] - (ENDS[num_known - 1] if num_known else 0)
        forget = used.popitem
        while self.num_bytes > self.capacity_bytes or len(used) > MAX_BLOCKS_HELD:
            self.num_bytes -= forget(last=False)[1][1]

    def resize(self, capacity_bytes: float) -> None:
        """Take another size; what has no place is forgotten by the next use."""
        self.capacity_bytes = capacity_bytes

    def check(self) -> None:
        """Raise AssertionError unless sizes add up and nothing is older than what comes after it."""
        assert self.num_bytes == sum(size for _, size in self._used.values())
        times = [at_s for at_s, _ in self._used.values()]
        assert times == sorted(times)
