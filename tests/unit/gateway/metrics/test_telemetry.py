"""Every series is there from the start, and no label comes from a client."""

from glm_gateway.groups.directory import Directory, Member
from glm_gateway.metrics.telemetry import Telemetry
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group


async def test_every_series_is_there_before_the_first_request() -> None:
    model = Model("chat", Directory())
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    told = Telemetry([model]).exposition().decode()
    for line in (
        'glm_gateway_requests_total{api="anthropic",model="chat",outcome="failed"} 0.0',
        'glm_gateway_continuations_total{model="chat"} 0.0',
        'glm_gateway_picks_total{model="chat",why="prefix"} 0.0',
        'glm_gateway_time_to_first_token_seconds_count{model="chat"} 0.0',
        'glm_gateway_requests_held{model="chat"} 0.0',
        'glm_gateway_oldest_held_seconds{model="chat"} 0.0',
        'glm_gateway_groups_ready{model="chat"} 1.0',
        'glm_gateway_in_flight_tokens{group="g0",model="chat"} 0.0',
    ):
        assert line in told
