"""Settings from the environment and from flags."""

from collections.abc import Iterable, Sized
from itertools import islice

import pytest

from glm_operator.handlers.triggers import build_settings
from glm_operator.settings import SettingsError, read_settings


def test_namespaces_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_NAMESPACES", "one, two,")
    assert read_settings().namespaces == ("one", "two")


def test_no_namespace_means_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_NAMESPACES", "")
    assert read_settings().namespaces == ()


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_WORKER_IMAGE", "environment:1")
    assert read_settings(worker_image=None).worker_image == "environment:1"
    assert read_settings(worker_image="flag:1").worker_image == "flag:1"


def test_a_value_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_MANAGEMENT_PORT", "many")
    monkeypatch.setenv("GLM_OPERATOR_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert "GLM_OPERATOR_MANAGEMENT_PORT=many" in str(caught.value)
    assert "GLM_OPERATOR_LOG_LEVEL=loud" in str(caught.value)


def test_a_watch_is_never_given_up() -> None:
    backoffs = build_settings().networking.error_backoffs
    assert isinstance(backoffs, Iterable)
    assert not isinstance(backoffs, Sized)
    first, second = (list(islice(backoffs, 1000)) for _ in range(2))
    assert (len(first), max(first)) == (1000, 30.0)
    assert second == first, "each watch counts for itself"


def test_without_a_url_workers_are_asked_and_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_PROMETHEUS_URL", "")
    monkeypatch.setenv("GLM_OPERATOR_PROMETHEUS_CA_FILE", "")
    settings = read_settings()
    assert (settings.prometheus_url, settings.prometheus_ca_file) == (None, None)


def test_the_url_of_prometheus_may_have_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM_OPERATOR_PROMETHEUS_URL", "https://metrics.example/team/prometheus/")
    assert read_settings().prometheus_url == "https://metrics.example/team/prometheus"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("prometheus:9090", "http://prometheus.monitoring:9090"),
        ("ftp://prometheus", "http://prometheus.monitoring:9090"),
        ("http://", "http://prometheus.monitoring:9090"),
        ("http://host:9090/?x=1", "no query"),
        ("http://host:9090/prefix/api/v1/query", "leave out /api/v1"),
        ("http://host:many", "the port"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    monkeypatch.setenv("GLM_OPERATOR_PROMETHEUS_URL", url)
    with pytest.raises(SettingsError, match=f"GLM_OPERATOR_PROMETHEUS_URL=.*{told}"):
        read_settings()


@pytest.mark.parametrize(
    "url",
    [
        "http://operator:pa55w0rd@host:9090",
        "http://operator:pa55/w0rd@host:9090",
        "http://operator:pa55?w0rd@host:9090",
        "http://operator:pa55@w0rd@host:9090",
        "operator:pa55w0rd@host:9090",
        "http:/operator:pa55w0rd@host:9090",
        "http://pa55w0rd@host",
        "http://host:9090?token=pa55w0rd",
        "http://host:9090#pa55w0rd",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_printed(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GLM_OPERATOR_PROMETHEUS_URL", url)
    with pytest.raises(SettingsError, match=r"GLM_OPERATOR_PROMETHEUS_URL=.*host") as caught:
        read_settings()
    assert "pa55" not in str(caught.value)
    assert "w0rd" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["USERNAME"], "GLM_OPERATOR_PROMETHEUS_PASSWORD_FILE go together"),
        (["CERTIFICATE"], "GLM_OPERATOR_PROMETHEUS_KEY_FILE go together"),
        (["BEARER_TOKEN", "USERNAME", "PASSWORD"], "exclude each other"),
    ],
)
def test_credentials_that_do_not_fit_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, files: list[str], told: str
) -> None:
    for what in files:
        monkeypatch.setenv(f"GLM_OPERATOR_PROMETHEUS_{what}_FILE", f"/etc/prometheus/{what}")
    with pytest.raises(SettingsError, match=told):
        read_settings()


@pytest.mark.parametrize(
    ("text", "budgets"), [("", {}), ("{}", {}), ('{"team-a": 16, "b": 0}', {"team-a": 16, "b": 0})]
)
def test_gpu_budgets_are_a_map_of_namespaces(
    monkeypatch: pytest.MonkeyPatch, text: str, budgets: dict[str, int]
) -> None:
    monkeypatch.setenv("GLM_OPERATOR_GPU_BUDGETS", text)
    assert read_settings().gpu_budgets == budgets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("team-a=16", "no JSON"),
        ("[16]", "map of namespaces"),
        ('{"Team A": 16}', "'Team A' is no name of a namespace"),
        ('{"a": -1}', "-1 of a"),
        ('{"a": 1.5}', "1.5 of a"),
        ('{"a": true}', "True of a"),
        ('{"a": "16"}', "'16' of a"),
    ],
)
def test_gpu_budgets_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.setenv("GLM_OPERATOR_GPU_BUDGETS", text)
    with pytest.raises(SettingsError, match=f"GLM_OPERATOR_GPU_BUDGETS=.*{told}"):
        read_settings()
