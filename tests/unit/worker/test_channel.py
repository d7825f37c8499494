"""Where the step channel is. For the channel itself see integration/test_engine_channel.py."""

import pytest

from glm_worker.assignment import RankAssignment
from glm_worker.engine.channel import step_endpoint


def an_assignment(meeting_dir: str | None) -> RankAssignment:
    return RankAssignment(
        rank=0,
        local_rank=0,
        world_size=2,
        generation="ab-1",
        secret="s",
        meeting_dir=meeting_dir,
        leader_host="h",
        store_port=29500,
        channel_port=29501,
        server_endpoint=None,
        slots_path="",
        num_local_slots=1,
    )


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("10.0.0.7", "tcp://10.0.0.7:29501"),
        ("chat-g0-0.chat-ranks.models.svc", "tcp://chat-g0-0.chat-ranks.models.svc:29501"),
        ("fd00::7", "tcp://[fd00::7]:29501"),
        ("::1", "tcp://[::1]:29501"),
        ("::", "tcp://*:29501"),
        ("0.0.0.0", "tcp://*:29501"),
    ],
)
def test_several_pods_meet_at_a_port(host: str, endpoint: str) -> None:
    assert step_endpoint(an_assignment(meeting_dir=None), host) == endpoint


def test_one_pod_meets_at_a_file_whatever_address_it_has() -> None:
    assert step_endpoint(an_assignment(meeting_dir="/run/ab/ranks-ab-1"), "0.0.0.0") == "ipc:///run/ab/ranks-ab-1/steps"
