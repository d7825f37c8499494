"""What a worker streams at /load is what a gateway reads there, and where it looks for it."""

from typing import cast

import msgspec

from glm_gateway.groups import slices
from glm_gateway.groups.found import MANAGEMENT_PORT
from glm_gateway.groups.load import LOAD_PATH
from glm_gateway.groups.load import Pace as LoadPace
from glm_gateway.groups.report import MAX_LINE_BYTES, LineReader, Report
from glm_gateway.routing.pick import SILENCE_S
from glm_operator import names
from glm_operator.render.network import service
from glm_worker.messages import LoadChanged
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.management.health import Role, management_app
from glm_worker.supervisor.management.load import AGAIN_S, LOOK_S, Line, line_of

FULL = LoadChanged(
    in_flight_tokens=7,
    tokens_to_prefill=3,
    oldest_waiting_s=0.5,
    max_running=4,
    max_model_len=2048,
    num_waiting=1,
    num_running=2,
    kv_usage=0.25,
    kv_tokens=4096,
    prefill_tokens_per_s=9000.0,
    fingerprint="f",
    model="m",
)


def test_both_have_the_same_fields() -> None:
    assert set(Report.__struct_fields__) == set(Line.__struct_fields__)
    assert set(LoadChanged.__struct_fields__) < set(Line.__struct_fields__)


def test_a_line_with_everything_and_one_with_next_to_nothing_are_read_as_they_were_meant() -> None:
    for load, start_s in ((FULL, 12.5), (None, None)):
        line = line_of(load, ready=True, leaving=False, incarnation="i-1", revision="r", start_s=start_s)
        (report,) = LineReader().feed(msgspec.json.encode(line) + b"\n")
        assert msgspec.structs.asdict(report) == msgspec.structs.asdict(line)
        assert len(msgspec.json.encode(line)) < MAX_LINE_BYTES / 16
    assert report.load == type(report.load)(), "what a server does not say is no zero for routing"


def test_a_gateway_asks_where_a_worker_answers() -> None:
    assert LOAD_PATH in {getattr(route, "path", "") for route in management_app(cast(Role, None)).routes}
    assert WorkerSettings.model_fields["management_port"].default == MANAGEMENT_PORT == names.MANAGEMENT_PORT


def test_a_group_that_is_well_is_never_silent_for_as_long_as_makes_it_suspect() -> None:
    assert AGAIN_S + 2 * LOOK_S <= 1.0 <= SILENCE_S / 3
    assert LoadPace().silence_s > SILENCE_S


def test_slices_of_the_service_that_is_rendered_name_groups_and_ports_as_a_gateway_reads_them() -> None:
    assert names.DEPLOYMENT_LABEL == slices.DEPLOYMENT_LABEL
    manifest = service("nano", "models")
    assert manifest["metadata"]["labels"][slices.DEPLOYMENT_LABEL] == "nano"
    assert {port["name"]: port["port"] for port in manifest["spec"]["ports"]}[slices.HTTP_PORT_NAME] == names.HTTP_PORT
    group = names.group_name("nano", 3)
    assert names.pod_name(group, 0) == group + slices.FIRST_POD
