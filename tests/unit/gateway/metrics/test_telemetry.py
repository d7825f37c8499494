"""Every series is there from the start, and no label comes from a client."""

from glm_gateway.groups.directory import Directory, Member
from glm_gateway.ladder.config import SloClassConfig, SloConfig
from glm_gateway.metrics.telemetry import Owner, Telemetry
from glm_gateway.models.model import Model
from glm_gateway.routing.pick import Group


async def test_every_series_is_there_before_the_first_request() -> None:
    model = Model("chat", Directory())
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    told = Telemetry([model]).exposition().decode()
    for line in (
        'glm_gateway_requests_total{api="anthropic",model="chat",outcome="failed"} 0.0',
        'glm_gateway_continuations_total{model="chat",outcome="taken_up"} 0.0',
        'glm_gateway_continuations_total{model="chat",outcome="given_up"} 0.0',
        'glm_gateway_picks_total{model="chat",why="prefix"} 0.0',
        'glm_gateway_time_to_first_token_seconds_count{model="chat",slo_class="default"} 0.0',
        'glm_gateway_groups_ejected{model="chat"} 0.0',
        'glm_gateway_retries_total{allowed="false",model="chat"} 0.0',
        'glm_gateway_requests_held{model="chat"} 0.0',
        'glm_gateway_oldest_held_seconds{model="chat"} 0.0',
        'glm_gateway_groups_ready{model="chat"} 1.0',
        'glm_gateway_in_flight_tokens{group="g0",model="chat"} 0.0',
    ):
        assert line in told


async def test_a_model_that_comes_has_all_its_series_and_one_that_ended_has_none() -> None:
    found = Telemetry([Model("chat", Directory())])
    found.add(Model("other", Directory()))
    assert 'glm_gateway_requests_total{api="openai",model="other",outcome="failed"} 0.0' in found.exposition().decode()
    found.drop("chat")
    assert 'model="chat"' not in found.exposition().decode()
    assert 'model="other"' in found.exposition().decode()


async def test_groups_that_answer_plainly_are_counted() -> None:
    model = Model("chat", Directory())
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1), Member(Group(name="g1"), "127.0.0.1", 2)])
    model.hear_reply("g0", in_frames=False)
    model.hear_reply("g1", in_frames=True)
    assert 'glm_gateway_groups_plain{model="chat"} 1.0' in Telemetry([model]).exposition().decode()


def test_what_a_drain_cut_and_whether_the_file_is_in_use_are_told() -> None:
    found = Telemetry([])
    found.cut(3)
    found.tell_current(is_current=False)
    told = found.exposition().decode()
    assert "glm_gateway_requests_cut_total 3.0" in told
    assert "glm_gateway_config_is_current 0.0" in told


async def test_series_say_whose_they_are_and_those_of_no_model_are_the_gateways() -> None:
    found = Telemetry([Model("chat", Directory()), Model("code", Directory())])
    found.begin("far")
    found.owners.take({"chat": Owner("models", "air"), "code": Owner("models", "coder")})
    told = found.exposition().decode()
    for line in (
        'glm_gateway_requests_held{deployment="air",model="chat",namespace="models"} 0.0',
        'glm_gateway_requests_held{deployment="coder",model="code",namespace="models"} 0.0',
        'glm_gateway_continuations_total{deployment="air",model="far",namespace="models",outcome="taken_up"} 0.0',
        'glm_gateway_config_is_current{deployment="air",namespace="models"} 1.0',
    ):
        assert line in told
    found.owners.take({"code": Owner("models", "coder")})
    told = found.exposition().decode()
    assert 'glm_gateway_requests_held{deployment="air",model="chat",namespace="models"} 0.0' in told, "it has requests"
    assert 'glm_gateway_config_is_current{deployment="coder",namespace="models"} 1.0' in told


async def test_nothing_is_told_by_class_while_a_group_answers_plainly() -> None:
    """Not all could be measured, and what its workers measure counts then."""
    model = Model("chat", Directory(), slo=SloConfig(classes=(SloClassConfig(name="fast", thresholds_s={"ttft": 1}),)))
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    found = Telemetry([model])
    assert 'glm_gateway_slo_requests_total{met="true",model="chat",slo_class="fast"} 0.0' in found.exposition().decode()
    model.hear_reply("g0", in_frames=False)
    assert "slo_class=" not in found.exposition().decode()
    model.hear_reply("g0", in_frames=True)
    assert 'glm_gateway_time_to_first_token_seconds_bucket{le="2.0",model="chat",slo_class="fast"} 0.0' in (
        found.exposition().decode()
    )


async def test_a_request_has_the_classes_that_hold_when_it_comes() -> None:
    model = Model("chat", Directory())
    found = Telemetry([model])
    model.slo = SloConfig(classes=(SloClassConfig(name="fast", thresholds_s={"ttft": 1}),))
    times = found.watch("chat", [], mode=None, streams=True, arrived_s=0.0)
    times.look()
    assert (
        'glm_gateway_slo_requests_total{met="false",model="chat",slo_class="fast"} 1.0' in found.exposition().decode()
    )
