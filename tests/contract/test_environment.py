"""Every variable one program sets for another is a setting there, with a value it accepts."""

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from glm_gateway.groups import slices
from glm_operator import names
from glm_operator.api.engine import Chat
from glm_operator.observe.report import GroupReport
from glm_operator.render import group_template, render, revision_of, speaks_tls
from glm_operator.render.pod import DEFAULT_KV_BYTES_ON_CPU
from glm_operator.settings import OperatorSettings
from glm_worker.kernels.cpu import library
from glm_worker.main import _parser
from glm_worker.settings import WorkerSettings, read_settings, unknown_variables
from unit.operator.operator_builders import a_deployment, a_layout

CHART = Path(__file__).resolve().parents[2] / "charts/glm-operator"
LIMITS = {
    "maxModelLen": 512,
    "maxBatchTokens": 64,
    "maxNumSeqs": 3,
    "maxWaitingRequests": 0,
    "maxWaitingTokens": 0,
    "kvCache": "64Mi",
    "drainAcceptSeconds": 0,
    "drainDeadlineSeconds": 0,
    "heartbeatLimitSeconds": 1,
    "startLimitSeconds": 10,
}
AIR = {"name": "GLM-4.5-Air", "source": "pvc://weights/air", "servedName": "air"}
SPECS: dict[str, dict[str, Any]] = {
    "the least": {},
    "two pods": {"hardware": {"device": "cpu", "ranksPerPod": 1}, "parallelism": {"tensor": 2, "expert": 2}},
    "every limit": {"engine": {"limits": LIMITS}},
    "chats read otherwise": {"engine": {"chat": {"controlTokens": "Token", "undeclaredTools": "Call"}}},
    "computed otherwise": {
        "engine": {
            "execution": {
                "prefixCache": "Disabled",
                "deterministic": "Disabled",
                "dtype": "Bfloat16",
                "kvDtype": "Float32",
                "threadsPerRank": 3,
                "lookAhead": "On",
            }
        }
    },
    "traced": {"engine": {"tracing": {"endpoint": "https://collector.example:4318/v1/traces"}}},
    "triton": {
        "model": AIR,
        "hardware": {"device": "cuda", "gpu": {}},
        "parallelism": {"tensor": 8, "expert": 16},
        "engine": {"execution": {"cudaKernels": "Triton", "lookAhead": "Off"}},
    },
    "cuda": {"model": AIR, "hardware": {"device": "cuda", "gpu": {}}, "parallelism": {"tensor": 8, "expert": 16}},
    "custom": {"model": {"name": "custom", "source": "file:///opt/model"}},
}


def environment(pod_index: int, **spec: Any) -> dict[str, str]:
    """Return the environment of one pod of the last group, as the kubelet would."""
    deployment = a_deployment(replicas=2, **spec)
    template = render(deployment, a_layout(deployment))[-1]["spec"]["template"]["spec"]
    (container,) = template["containers"]
    return {entry["name"]: entry.get("value", str(pod_index)) for entry in container["env"]}


def settings_of(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> WorkerSettings:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return WorkerSettings()  # type: ignore[call-arg]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_variable_is_a_setting(spec: dict[str, Any]) -> None:
    known = {f"GLM_{name.upper()}" for name in WorkerSettings.model_fields}
    assert set(environment(0, **spec)) <= known


def test_workers_read_certificates_where_they_are_mounted_and_gateways_ask_for_the_name_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment = a_deployment()
    pod = render(deployment, a_layout(deployment), has_tls=True)[-1]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert speaks_tls(pod)
    settings_of(monkeypatch, {entry["name"]: entry.get("value", "0") for entry in container["env"]})
    parsed = vars(_parser().parse_args(container["args"]))
    settings = read_settings(**{name: value for name, value in parsed.items() if name in WorkerSettings.model_fields})
    (mounted,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "tls"]
    assert str(settings.tls_folder) == mounted
    assert slices.HTTPS_PORT_NAME in [port["name"] for port in container["ports"]]
    asked = slices.server_name_of(deployment.name, deployment.namespace)
    assert asked == names.workers_host(deployment.name, deployment.namespace)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_pod_of_a_group_accepts_its_values(monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]) -> None:
    layout = a_layout(a_deployment(**spec))
    for pod_index in range(layout.pods_per_group):
        settings = settings_of(monkeypatch, environment(pod_index, **spec))
        assert (settings.pod_index, settings.num_pods, settings.world_size) == (
            pod_index,
            layout.pods_per_group,
            layout.ranks,
        )


def test_values_arrive_as_they_were_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, environment(0, **SPECS["every limit"]))
    assert (settings.max_model_len, settings.max_batch_tokens, settings.max_num_seqs) == (512, 64, 3)
    assert (settings.max_waiting_requests, settings.max_waiting_tokens) == (0, 0)
    assert settings.kv_cache_bytes == 64 * 2**20
    assert (settings.drain_accept_s, settings.drain_deadline_s) == (0, 0)
    assert (settings.heartbeat_limit_s, settings.start_limit_s) == (1, 10)
    assert settings.model == "builtin://glm-nano"
    assert settings.served_model_name == "glm-nano"


def test_how_chats_are_read_arrives_as_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, environment(0, **SPECS["chats read otherwise"]))
    assert (settings.control_tokens, settings.undeclared_tools) == ("token", "call")
    as_default = {"engine": {"chat": {"controlTokens": "Text", "undeclaredTools": "Text"}}}
    settings = settings_of(monkeypatch, environment(0, **as_default))
    assert (settings.control_tokens, settings.undeclared_tools) == ("text", "text")


def test_how_a_group_computes_arrives_as_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, environment(0, **SPECS["computed otherwise"]))
    assert (settings.prefix_cache, settings.deterministic) == (False, False)
    assert (settings.dtype, settings.kv_cache_dtype) == ("bfloat16", "float32")
    assert (settings.threads_per_rank, settings.look_ahead, settings.cuda_kernels) == (3, "on", "auto")
    settings = settings_of(monkeypatch, environment(0, **SPECS["triton"]))
    assert (settings.cuda_kernels, settings.look_ahead) == ("triton", "off")


def test_where_spans_go_arrives_as_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, environment(0, **SPECS["traced"]))
    assert settings.trace_endpoint == "https://collector.example:4318/v1/traces"


@pytest.mark.parametrize(
    ("room", "said", "variables"),
    [
        ("chat", "chats read otherwise", {"GLM_CONTROL_TOKENS", "GLM_UNDECLARED_TOOLS"}),
        (
            "execution",
            "computed otherwise",
            {
                "GLM_PREFIX_CACHE",
                "GLM_DETERMINISTIC",
                "GLM_DTYPE",
                "GLM_KV_CACHE_DTYPE",
                "GLM_THREADS_PER_RANK",
                "GLM_LOOK_AHEAD",
            },
        ),
        ("tracing", "traced", {"GLM_TRACE_ENDPOINT"}),
    ],
)
def test_a_spec_that_leaves_a_room_out_has_the_revision_it_had(room: str, said: str, variables: set[str]) -> None:
    """So that no group moves where the operator is new; one that says something is a new revision."""
    specs: list[dict[str, Any]] = [{}, {"engine": {room: {}}}, SPECS[said]]
    deployments = [a_deployment(**spec) for spec in specs]
    plain, empty, other = (revision_of(group_template(each, a_layout(each))) for each in deployments)
    assert plain == empty != other
    assert not variables & set(environment(0))
    assert variables <= set(environment(0, **SPECS[said]))
    assert room not in a_deployment().spec.normal_form()["engine"]  # type: ignore[operator]


def test_metrics_say_whose_they_are_in_the_words_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, environment(0))
    revision = revision_of(group_template(a_deployment(), a_layout(a_deployment())))
    whose = {"namespace": "models", "deployment": "chat", "group": "chat-g1", "revision": revision}
    assert settings.identity == whose


def test_the_worker_awaits_the_token_that_the_operator_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, environment(0))
    assert settings.management_token == names.management_token(a_deployment().metadata.uid)
    assert settings.management_token not in repr(settings)


def test_pods_of_a_group_meet_where_the_worker_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, environment(1, **SPECS["two pods"]))
    assert settings.leader_host == "chat-g1-0.chat-ranks.models.svc"
    assert settings.http_port == names.HTTP_PORT
    assert settings.management_port == names.MANAGEMENT_PORT
    assert settings.coordinator_port == names.COORDINATOR_PORT
    assert settings.rendezvous_port == names.RENDEZVOUS_PORT


def test_the_worker_writes_only_where_a_pod_can() -> None:
    assert WorkerSettings.model_fields["run_dir"].default.is_relative_to("/tmp")


def test_defaults_named_in_the_api_are_the_workers() -> None:
    defaults = {name: WorkerSettings.model_fields[name].default for name in WorkerSettings.model_fields}
    limits = a_deployment().spec.engine.limits
    assert limits.drain_accept_seconds == defaults["drain_accept_s"]
    assert limits.drain_deadline_seconds == defaults["drain_deadline_s"]
    assert limits.heartbeat_limit_seconds == defaults["heartbeat_limit_s"]
    assert limits.start_limit_seconds == defaults["start_limit_s"]
    described = type(limits).model_fields
    for name in ("max_batch_tokens", "max_num_seqs", "max_waiting_requests", "max_waiting_tokens"):
        assert f"Default: {defaults[name]}." in (described[name].description or "")
    for name in ("control_tokens", "undeclared_tools"):
        assert f"Default: {defaults[name].capitalize()}." in (Chat.model_fields[name].description or "")
    assert "256 MiB" in (WorkerSettings.model_fields["kv_cache_bytes"].description or "")
    assert DEFAULT_KV_BYTES_ON_CPU == 256 * 2**20


def test_the_chart_sets_only_what_the_operator_reads() -> None:
    template = (CHART / "templates/deployment.yaml").read_text()
    known = {f"GLM_OPERATOR_{name.upper()}" for name in OperatorSettings.model_fields}
    found = set(re.findall(r"GLM_OPERATOR_\w+", template))
    assert found
    assert found <= known


def test_the_chart_probes_the_port_the_operator_serves() -> None:
    template = (CHART / "templates/deployment.yaml").read_text()
    assert re.findall(r"containerPort: (\d+)", template) == [str(OperatorSettings().management_port)]


def test_the_default_worker_image_is_of_this_version() -> None:
    assert f"glm-worker:{metadata.version('glm-operator')}" == names.DEFAULT_WORKER_IMAGE


def test_a_worker_knows_every_variable_that_the_operator_renders() -> None:
    for spec in SPECS.values():
        assert unknown_variables(environment(0, **spec)) == []


def test_a_variable_that_is_no_setting_is_named() -> None:
    """As one of a later version, or one that a person misspelt."""
    variables = {"GLM_MODEL": "x", "GLM_DTIPE": "float32", library.VARIABLE: "avx2", "GLMOTHER": "", "PATH": "/bin"}
    assert unknown_variables(variables) == ["GLM_DTIPE"]


def test_what_a_worker_says_of_settings_is_read_by_the_operator() -> None:
    told = {"state": "serving", "unknown_settings": ["GLM_DTIPE"]}
    report = GroupReport.model_validate(told)
    assert (report.tells_settings, report.unknown_settings) == (True, ["GLM_DTIPE"])
