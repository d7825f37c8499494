"""What a worker may let a body wait for, summed, is within the time that a gateway gives a request to be sent."""

from glm_edge.http.heads import MAX_BODY_BYTES
from glm_edge.http.protocol import MAX_UNREAD_BYTES
from glm_gateway.proxy.pool import Patience
from glm_worker.server.edge.body_room import WAIT_S
from glm_worker.server.edge.pace import LONGEST_S


def test_the_longest_body_waits_for_less_than_a_gateway_has_patience() -> None:
    """Else a flood of them would have gateways take groups for broken."""
    most_parts = MAX_BODY_BYTES / MAX_UNREAD_BYTES
    assert WAIT_S + most_parts * LONGEST_S < Patience().write_s
