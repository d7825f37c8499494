"""Where counters are kept. Values go in and out, so that a script in another process can do the same at once.

A store makes the functions of reserve.py atomic over all scopes of a request. Scopes carry their limits: a store knows
of no configuration. One that several gateways share goes by its own clock in place of `now`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from glm_gateway.limits.counters import Counters
from glm_gateway.limits.limit import Unit
from glm_gateway.limits.reserve import Granted, Refusal, Reservation, Scope
from glm_gateway.limits.tokens import Usage


class StoreGone(Exception):
    """The counters cannot be reached. Whether requests go on is the deployment's word."""


class Store(Protocol):
    """Every reservation is settled or released exactly once, in a `finally`: a store does not know who forgot it."""

    async def reserve(self, scopes: Sequence[Scope], usage: Usage, now: float) -> Granted | Refusal:
        """Take what a request may use from all scopes, or from none. Raises StoreGone."""

    async def settle(self, reservation: Reservation, used: Usage, now: float) -> Mapping[str, Counters]:
        """Count what the request did use; return the counters of its scopes. Raises StoreGone."""

    async def release(self, reservation: Reservation, now: float) -> Mapping[str, Counters]:
        """Take a request back that was refused further on; return the counters of its scopes. Raises StoreGone."""

    async def counters(self, scopes: Sequence[Scope]) -> Mapping[str, Counters]:
        """Return the counters of these scopes as they are, to tell a caller. Raises StoreGone."""


class Prior(Protocol):
    """What a scope has spent of a month by what is written down, in tokens or in PICO."""

    def __call__(self, scope: str, unit: Unit, month: str) -> int: ...


def nothing_prior(scope: str, unit: Unit, month: str) -> int:  # noqa: ARG001 - a Prior
    """Return 0: nothing is written down."""
    return 0
