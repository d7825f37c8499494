"""Blocks of ports at which the ranks of groups of several pods meet. Pure.

torch's store listens on every address of the machine, whichever it is given: an address of its own does not keep a
group's store apart from another's. So each group of several pods gets ports of its own, GLM_RENDEZVOUS_PORT and those
after it. The ranks of a group of one pod meet by files.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from glm_operator import names
from glm_operator.local.errors import LocalError

BLOCK_SIZE = 64  # as many as a worker uses from GLM_RENDEZVOUS_PORT on
_FIXED_PORTS = {names.HTTP_PORT, names.MANAGEMENT_PORT, names.COORDINATOR_PORT}  # which every leader has

BLOCKS = tuple(
    first
    for first in range(20032, 32768, BLOCK_SIZE)  # from 32768 on the kernel gives ports to outgoing connections
    if not _FIXED_PORTS & {*range(first, first + BLOCK_SIZE)}
)
"""The first port of each block."""


def assign_blocks(
    groups: Sequence[str], held: Mapping[str, int], taken: Collection[int], is_free: Callable[[int], bool]
) -> dict[str, int]:
    """Return the first port of a block for each group, no two alike.

    groups: those of several pods. held: blocks of this deployment's groups that run; they keep them. taken: blocks of
    other deployments. is_free: whether nobody listens on the ports of a block; asked only of blocks that may be chosen.
    """
    used = {*held.values(), *taken}
    free = (first for first in BLOCKS if first not in used and is_free(first))
    assigned = {}
    for group in groups:
        first = held[group] if group in held else next(free, None)
        if first is None:
            raise LocalError(
                f"no ports are left for group {group}: a group of several pods needs {BLOCK_SIZE} in a row, and of the "
                f"{len(BLOCKS)} such blocks from {BLOCKS[0]} to {BLOCKS[-1] + BLOCK_SIZE - 1}, {len(used)} belong to "
                "groups that run here and other programs listen in the rest; stop a deployment with `glm local down "
                "NAME`, or find what listens with: ss -ltnp"
            )
        assigned[group] = first
        used.add(first)
    return assigned
