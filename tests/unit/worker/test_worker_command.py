import os

import pytest

from glm_worker import main
from glm_worker.settings import WorkerSettings, read_settings
from glm_worker.supervisor.children.environment import child_environment, zygote_environment


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WorkerSettings.model_fields:
        monkeypatch.delenv(f"GLM_{name.upper()}", raising=False)


def test_a_wrong_value_stops_with_its_name_and_the_code_of_a_wrong_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["serve", "--model", "m", "--num-pods", "many"]) == 78
    assert "GLM_NUM_PODS=many" in capsys.readouterr().err


def test_a_missing_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["serve"]) == 78
    assert "GLM_MODEL is not set" in capsys.readouterr().err


def test_every_setting_is_a_flag_in_both_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.run(["serve", "--help"])
    text = capsys.readouterr().out
    for name in WorkerSettings.model_fields:
        assert f"--{name}" in text
        assert f"--{name.replace('_', '-')}" in text


def test_flags_reach_the_children_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_NUM_PODS", "1")
    settings = read_settings(model="m", num_pods="4", pod_index="3", served_model_name="", drain_accept_s="0.5")
    for name, value in child_environment(settings, {"GLM_NUM_PODS": "1", "PATH": "/bin"}).items():
        monkeypatch.setenv(name, value)
    assert read_settings() == settings


@pytest.mark.parametrize(("num_pods", "interface"), [(1, "lo"), (2, "eth1")])
def test_gloo_listens_on_loopback_if_all_ranks_are_in_one_pod(num_pods: int, interface: str) -> None:
    environment = zygote_environment(read_settings(model="m", num_pods=num_pods), {"GLOO_SOCKET_IFNAME": "eth1"})
    assert environment["GLOO_SOCKET_IFNAME"] == interface


def test_the_zygote_starts_no_thread_pools() -> None:
    environment = zygote_environment(read_settings(model="m"), {"OMP_NUM_THREADS": "64"})
    assert (
        environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"
    )


def test_the_token_of_the_management_port_reaches_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_MANAGEMENT_TOKEN", "s3cret")
    settings = read_settings(model="/m")
    assert settings.management_token == "s3cret"
    for environment in (child_environment, zygote_environment):
        assert "s3cret" not in environment(settings, os.environ).values()
