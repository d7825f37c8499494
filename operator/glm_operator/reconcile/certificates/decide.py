"""What is written of an authority and of the certificates it signs, and when. Pure: time is an argument.

The law: a gateway and a worker whose files are up to an hour old accept each other, over years of renewals. So an
authority that comes next is trusted for a day by all before it signs anything, and one that has signed is trusted until
it ends; nothing that it signed is good for longer than itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

SKEW = timedelta(hours=1)
"""How much earlier than it was made a certificate begins: clocks of nodes differ."""

LEAF_LIFE, LEAF_LEFT = timedelta(days=90), timedelta(days=30)
"""How long a certificate of a gateway or of workers is good for, and how much of it is left when it is renewed."""

ROOT_LIFE, ROOT_LEFT = timedelta(days=3650), timedelta(days=365)
"""The same of what signs them."""

SPREAD = timedelta(days=1)
"""How long all trust a new root before it signs: files arrive within minutes, and an operator may be away meanwhile."""

LAST_SIGNED = 2 * LEAF_LIFE
"""What is left of a root that signs nothing any more, where there is another one."""


@dataclass(frozen=True)
class Root:
    """One certificate of an authority. id: of the certificate. signs: its key is kept."""

    id: str
    starts: datetime
    ends: datetime
    signs: bool

    @property
    def made(self) -> datetime:
        return self.starts + SKEW


@dataclass(frozen=True)
class Leaf:
    """A certificate of a gateway or of workers. signer: id of its root; empty: none of those there are.

    trusts: ids of the roots that stand beside it. trusts_since: when these became those.
    """

    signer: str
    starts: datetime
    ends: datetime
    trusts: frozenset[str]
    trusts_since: datetime


class Step(Enum):
    """What becomes of a leaf."""

    KEEP = "as it is"
    TRUST = "the same certificate beside other roots"
    ISSUE = "another certificate"


def kept(roots: Iterable[Root], now: datetime) -> list[Root]:
    """Return the roots that stay, the oldest first: those that have not ended. One about to end loses its key."""
    left = sorted((root for root in roots if root.ends > now), key=lambda root: root.starts)
    signing = [root for root in left if root.signs]
    return [
        replace(root, signs=False) if root.signs and root != signing[-1] and root.ends - now <= LAST_SIGNED else root
        for root in left
    ]


def needs_next(roots: Iterable[Root], now: datetime) -> bool:
    """Tell whether another root is made now."""
    return all(root.ends - now <= ROOT_LEFT for root in roots if root.signs)


def signer(roots: Sequence[Root], leafs: Iterable[Leaf], now: datetime) -> Root:
    """Return the root that signs for a deployment: the newest that all of its leafs have trusted for long enough.

    roots: as `kept` returns them, at least one that signs.
    """
    signing, leafs = [root for root in roots if root.signs], list(leafs)
    spread = [
        root
        for root in signing
        if now - root.made >= SPREAD
        and all(root.id in leaf.trusts and now - leaf.trusts_since >= SPREAD for leaf in leafs)
    ]
    if spread:
        return spread[-1]
    lasting = [root for root in signing if root.ends - now > LEAF_LEFT]
    return (lasting or signing)[0]


def step(leaf: Leaf | None, roots: Iterable[Root], now: datetime) -> Step:
    """Return what becomes of a leaf beside these roots. None: there is none that can be read, or of another name."""
    ids = {root.id for root in roots}
    if leaf is None or leaf.signer not in ids or leaf.starts > now or leaf.ends - now <= LEAF_LEFT:
        return Step.ISSUE
    return Step.KEEP if leaf.trusts == ids else Step.TRUST
