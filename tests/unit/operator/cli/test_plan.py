"""The command line: what it prints of good and of bad input."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from glm_operator.cli import app
from glm_operator.cli.files import KubernetesLoader

NANO = """
apiVersion: glm-operator.io/v1alpha1
kind: GLMDeployment
metadata: {name: nano}
spec:
  model: {name: glm-nano, source: "builtin://glm-nano"}
  hardware: {device: cpu}
  parallelism: {expert: 2}
"""


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def glm(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def plan(spec: str) -> Result:
    return glm("plan", "-f", "-", stdin=spec)


def test_plan_says_how_the_model_is_sharded() -> None:
    result = plan(NANO)
    assert result.exit_code == 0
    assert "2 on cpu (1 x 2 a pod)" in result.stdout
    assert "expert-parallel over 2 ranks" in result.stdout


AIR = """
apiVersion: glm-operator.io/v1alpha1
kind: GLMDeployment
metadata: {name: air}
spec:
  model: {name: GLM-4.5-Air, source: "pvc://models/air"}
  hardware: {device: cuda, gpu: {perNode: 8}, nodeSelector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}}
  parallelism: {tensor: 4, expert: 4}
  slo: {classes: [{name: chat, ttft: 1s, itl: 1ms}, {name: slow, itl: 80ms}]}
"""


def test_plan_says_what_no_request_can_beat_and_which_promise_is_below_it() -> None:
    result = plan(AIR)
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0, "it is no refusal"
    assert "least times itl 2.23ms, ttft 2.23ms (65ms for 8,192 tokens of prompt)" in said
    assert "of one request alone on 4 x H100 SXM in bf16" in said
    assert (
        "class chat cannot be kept: itl of 0.001 s is promised, and one request alone takes at least 0.00223 s" in said
    )
    assert "class slow" not in said


def test_plan_guesses_no_gpu() -> None:
    assert "not known: hardware.nodeSelector has no" in plan(AIR.replace("NVIDIA-H100-80GB-HBM3", "NVIDIA-H900")).stdout
    assert "least times" not in plan(NANO).stdout


def test_plan_prints_the_objects_the_operator_would_apply() -> None:
    result = glm("plan", "--manifests", "-f", "-", stdin=NANO)
    kinds = [document["kind"] for document in yaml.safe_load_all(result.stdout)]
    assert kinds == ["ServiceAccount", "Service", "Service", "StatefulSet"]


@pytest.mark.parametrize(
    ("engine", "image"), [("", "registry.example/worker:7"), ("\n  engine: {image: mine:1}", "mine:1")]
)
def test_plan_prints_the_image_that_an_operator_with_that_default_would_apply(engine: str, image: str) -> None:
    arguments = ("plan", "--manifests", "--worker-image", "registry.example/worker:7", "-f", "-")
    result = glm(*arguments, stdin=f"{NANO.rstrip()}{engine}")
    *_, group = yaml.safe_load_all(result.stdout)
    assert group["spec"]["template"]["spec"]["containers"][0]["image"] == image


@pytest.mark.parametrize(
    ("options", "spec", "port"),
    [
        ((), "", "https"),
        (("--no-certificates",), "", "http"),
        ((), "\n  gateway: {enabled: false}", "http"),
    ],
)
def test_plan_prints_what_groups_speak_with_the_gateway_that_they_would_have(
    options: tuple[str, ...], spec: str, port: str
) -> None:
    result = glm("plan", "--manifests", *options, "-f", "-", stdin=f"{NANO.rstrip()}{spec}")
    *_, group = yaml.safe_load_all(result.stdout)
    assert group["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"] == port


def test_what_the_planner_refuses_is_printed_in_its_words() -> None:
    result = plan(NANO.replace("expert: 2", "expert: 3"))
    assert result.exit_code == 1
    assert "expert 3 does not divide the 8 routed experts" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_field_is_named() -> None:
    result = plan(NANO.replace("expert: 2", "expert: 2, pipeline: 2"))
    assert (result.exit_code, "spec.parallelism.pipeline is not a known field" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold exactly one GLMDeployment; it holds: nothing"),
        ("kind: Pod", "it holds: Pod"),
        (f"{NANO}---{NANO}", "it holds: GLMDeployment, GLMDeployment"),
        ("- 1", "it holds: no object"),
        ("{", "is not YAML"),
    ],
)
def test_a_file_without_exactly_one_deployment_is_refused_with_what_it_holds(text: str, said: str) -> None:
    result = plan(text)
    assert (result.exit_code, said in result.stderr) == (1, True), result.stderr


def test_a_file_that_is_missing_is_named() -> None:
    result = glm("local", "up", "-f", "/nowhere.yaml")
    assert (result.exit_code, "cannot read /nowhere.yaml: No such file" in result.stderr) == (1, True)


def test_status_of_nothing_says_how_to_start_something() -> None:
    assert "glm local up -f" in glm("local", "status").stdout


def test_status_as_json_is_json() -> None:
    assert json.loads(glm("local", "status", "-o", "json").stdout) == []


def test_an_unknown_output_form_is_refused() -> None:
    assert glm("local", "status", "-o", "xml").exit_code == 1


def test_stopping_what_does_not_run_is_an_error_only_when_it_was_named() -> None:
    assert glm("local", "down").exit_code == 0
    assert glm("local", "down", "nano").exit_code == 1


def test_the_crd_is_printed_as_yaml() -> None:
    assert yaml.safe_load(glm("crd", "print").stdout)["metadata"]["name"] == "glmdeployments.glm-operator.io"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    result = glm("plan", "-f", str(tmp_path / "binary.yaml"))
    assert (result.exit_code, "is not YAML" in result.output) == (1, True)


def test_a_file_is_read_as_kubectl_reads_it() -> None:
    text = "{day: 2026-02-30, at: 12:30:45, many: 1e3, few: 12, part: 0.5, hex: 0x1f, name: v1.2, no: -3}"
    assert yaml.load(text, KubernetesLoader) == {
        "day": "2026-02-30",
        "at": "12:30:45",
        "many": 1000.0,
        "few": 12,
        "part": 0.5,
        "hex": 31,
        "name": "v1.2",
        False: -3,
    }
