"""Where one request goes, and what its group is told beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from glm_edge.errors.failure import Failure
from glm_gateway.access.decide import Caller, Mode
from glm_gateway.exchange.refused import Refused
from glm_gateway.exchange.state import State
from glm_gateway.ladder.promises import class_of, first_token_s, told_headers
from glm_gateway.models.model import Model
from glm_gateway.models.only import ToGroup, ToUpstream
from glm_gateway.models.placement import Placement
from glm_gateway.proxy.heads import CONTEXT_HEADER, ROLE_HEADER, TENANT_HEADER, TOKEN_HEADER
from glm_gateway.routing.classes import HIGHEST, LOWEST, place_of
from glm_gateway.routing.pick import Request
from glm_gateway.routing.prefix import prefix_key, prefix_of
from glm_gateway.surfaces.ask import Ask
from glm_gateway.surfaces.routes import Kind
from glm_gateway.upstreams.upstream import Upstream

Headers = Sequence[tuple[bytes, bytes]]
Placed = Placement | ToGroup | ToUpstream

BYTES_A_TOKEN = 4.0
"""Of a prompt, before any group has counted one: what English text has."""


@dataclass(frozen=True)
class Destination:
    """headers: of the client. own_id: that no other request has. began_s: when it came, by the clock of the loop."""

    state: State
    caller: Caller
    path: str
    headers: Headers
    own_id: str
    began_s: float

    def target(self, ask: Ask, kind: Kind) -> Model | Upstream:
        """Return the model or the upstream that is asked. Raises Refused."""
        models, names = self.state.models, self.state.names
        if ask.model is None:
            if len(models) == 1 and kind is Kind.COUNT:
                return next(iter(models.values()))
            raise Refused(
                Failure(400, "model is missing", "invalid_request_error", "model", "missing_required_parameter")
            )
        if (
            ask.previous is not None
            and (keeper := names.keeper(ask.model, self.state.keepers.of(ask.previous))) is not None
        ):
            return keeper
        is_for_agents = self.path.startswith("/api/anthropic")  # they ask for a vendor's names there
        if is_for_agents and len(models) == 1 and ask.model.startswith("claude") and ask.model not in names.known:
            return next(iter(models.values()))
        target = names.target(ask.model, self._sticky or self.own_id, self.path)
        if isinstance(target, Failure):
            raise Refused(target)
        return target

    def placing(self, target: Model | Upstream, ask: Ask, *, writes: bool) -> Placed:
        """Return what places the request; close it. writes: an answer is written."""
        if isinstance(target, Upstream):
            return ToUpstream(target)
        if ask.previous is not None:
            return ToGroup(target, self.state.keepers.of(ask.previous), writes=writes)
        return self._placement(target, ask, writes=writes)

    def told(self, placing: Placed) -> list[tuple[bytes, bytes]]:
        """Return the headers that say who we are, who asks, and what the model's promises go by."""
        token = self.state.token if isinstance(placing, ToUpstream) else placing.model.token or self.state.token
        told = [(TOKEN_HEADER, token.encode()), (TENANT_HEADER, self.caller.tenant.encode())]
        if self.caller.role is not None:
            told.append((ROLE_HEADER, self.caller.role.encode()))
        if not isinstance(placing, ToUpstream):
            told += told_headers(placing.model.slo, self.headers)
        return told

    def _placement(self, model: Model, ask: Ask, *, writes: bool) -> Placement:
        prefix = prefix_of((*ask.head, *ask.turns), prefix_key(self.state.secret, self.caller.tenant))
        request = Request(
            key=self.own_id, prompt_tokens=prompt_tokens(prefix.num_bytes), prefix=prefix, sticky=self._sticky
        )
        of_caller = self.state.priorities.of_group(self.caller.group)
        promise_s = of_caller.promise_s
        if promise_s is None:
            promise_s = first_token_s(class_of(model.slo, mode=ask.mode or model.default_mode, headers=self.headers))
        place = place_of(
            msgspec.structs.replace(of_caller, promise_s=promise_s),
            arrived_s=self.began_s,
            number=next(model.numbers),
            priority=min(max(ask.priority or 0, LOWEST), HIGHEST),
            deadline_s=ask.deadline_s,
        )
        return Placement(
            model,
            request,
            place,
            num_bytes=ask.num_bytes,
            picked=self.state.telemetry.picked,
            promise_s=promise_s,
            deadline_s=ask.deadline_s,
            may_go_outside=writes and Upstream.takes(self.path),
            writes=writes,
            class_name=of_caller.name,
        )

    @property
    def _sticky(self) -> str:
        """Who stays on an arm: a caller; where nobody knows callers each request is on its own."""
        return "" if self.state.gate.mode is Mode.NONE else self.caller.tenant


def context_header(most: int | None) -> list[tuple[bytes, bytes]]:
    """Return what tells a group how many tokens a request may have; none where that is not bounded."""
    return [] if most is None else [(CONTEXT_HEADER, b"%d" % most)]


def prompt_tokens(num_bytes: int) -> int:
    """Return about how many tokens a prompt has."""
    return max(1, math.ceil(num_bytes / BYTES_A_TOKEN))
