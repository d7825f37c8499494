"""What a request holds until it has ended, or why it may not be sent on."""

from dataclasses import dataclass

from glm_edge.errors.failure import Failure
from glm_gateway.access.decide import Caller
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.reserve import Reservation
from glm_gateway.surfaces.routes import Api

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Refused:
    """Why a request may not be sent on. headers: beside those of the failure."""

    failure: Failure
    headers: Headers


@dataclass
class Reserved:
    """What a request holds until it is settled. headers: of its reply, about limits. quotas: that it began with.

    context_tokens: most of its prompt and its answers together; None: as many as the model has. overlooked: limits in
    the shadow that it passes. in_background: it goes on without its client.
    more: what its prompt took beside, once it was counted. is_released: it was refused then, and holds nothing.
    """

    caller: Caller
    model: str
    api: Api
    reservation: Reservation
    headers: Headers
    quotas: QuotasConfig
    context_tokens: int | None = None
    overlooked: frozenset[tuple[str, str]] = frozenset()
    in_background: bool = False
    more: Reservation | None = None
    is_released: bool = False
