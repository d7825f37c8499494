"""What Helm makes of prometheus.*, gpuBudgets and monitoring.*, with the CRDs of prometheus-operator and without."""

from typing import Any

import pytest
import yaml

from contract.helm import CHART, helm, needs_helm, of_kind, pod_specs, rendered
from glm_operator import names
from glm_operator.render.labels import group_labels
from glm_operator.settings import OperatorSettings, read_settings

pytestmark = needs_helm

CRDS = ["monitoring.coreos.com/v1"]
KINDS = ("PodMonitor", "PrometheusRule", "ConfigMap")
PARTS = {"podMonitor": "PodMonitor", "rules": "PrometheusRule", "dashboards": "ConfigMap"}
SECRETS = {
    "prometheus.url": "https://prometheus.monitoring.svc:9090",
    "prometheus.caSecret.name": "authority",
    "prometheus.certificateSecret.name": "pair",
}
TOKEN = {"prometheus.bearerTokenSecret.name": "token-of-ours"}
BASIC = {"prometheus.basicAuthSecret.name": "user"}


def operator_environment(values: dict[str, Any]) -> dict[str, str]:
    spec = next(spec for name, spec in pod_specs(rendered(values)).items() if name.startswith("Deployment"))
    return {item["name"]: item.get("value") for item in spec["containers"][0]["env"]}


def kinds(values: dict[str, Any], *, api_versions: list[str]) -> set[str]:
    found = {item["kind"] for item in rendered(values, api_versions=api_versions)}
    return found & set(KINDS)


def test_nothing_of_it_is_rendered_where_the_crds_are_not() -> None:
    assert kinds({}, api_versions=[]) == set()


def test_all_of_it_is_rendered_once_the_crds_are_there() -> None:
    assert kinds({}, api_versions=CRDS) == set(KINDS)


@pytest.mark.parametrize(("part", "kind"), PARTS.items())
def test_each_part_can_be_had_without_the_crds_and_refused_with_them(part: str, kind: str) -> None:
    assert kinds({f"monitoring.{part}.enabled": True}, api_versions=[]) == {kind}
    assert kinds({f"monitoring.{part}.enabled": False}, api_versions=CRDS) == set(KINDS) - {kind}


def test_values_of_a_release_from_before_these_keys_still_render() -> None:
    gone = rendered({"monitoring": None, "prometheus": None, "gpuBudgets": None}, api_versions=CRDS)
    assert {item["kind"] for item in gone} & set(KINDS) == set()
    assert len(of_kind(gone, "Deployment")) == 1


def test_everything_that_is_found_by_labels_has_those_that_the_values_give() -> None:
    found = [
        item for item in rendered({"monitoring.labels": {"release": "kps"}}, api_versions=CRDS) if item["kind"] in KINDS
    ]
    assert len(found) >= 4
    assert {item["metadata"]["labels"]["release"] for item in found} == {"kps"}


def test_the_pod_monitor_of_workers_selects_the_first_pod_of_each_group_and_no_other() -> None:
    workers = of_kind(rendered(api_versions=CRDS), "PodMonitor")[0]
    selected = workers["spec"]["selector"]["matchLabels"]
    pod = {**group_labels("nano", "nano-g0", "abc"), names.POD_INDEX_LABEL: "0"}
    assert selected.items() <= pod.items()
    assert not selected.items() <= {**pod, names.POD_INDEX_LABEL: "1"}.items()


def test_labels_of_the_workers_win_over_those_of_the_target() -> None:
    for monitor in of_kind(rendered(api_versions=CRDS), "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert (endpoint["honorLabels"], endpoint["port"]) == (True, "management")


def test_workers_are_scraped_as_often_as_demand_is_decided_unless_the_values_say_otherwise() -> None:
    def interval(values: dict[str, Any]) -> str:
        workers = of_kind(rendered(values, api_versions=CRDS), "PodMonitor")[0]
        return str(workers["spec"]["podMetricsEndpoints"][0]["interval"])

    assert interval({}) == "5s"
    assert interval({"monitoring.podMonitor.interval": "30s"}) == "30s"


@pytest.mark.parametrize(("served", "expected"), [([], {"any": True}), (["a", "b"], {"matchNames": ["a", "b"]})])
def test_workers_are_scraped_in_the_namespaces_that_the_operator_serves(
    served: list[str], expected: dict[str, Any]
) -> None:
    workers = of_kind(rendered({"watchNamespaces": served}, api_versions=CRDS), "PodMonitor")[0]
    assert workers["spec"]["namespaceSelector"] == expected


def test_the_pod_monitor_of_the_operator_selects_its_pod_and_neither_hook_nor_test() -> None:
    objects = rendered(api_versions=CRDS)
    selected = of_kind(objects, "PodMonitor")[-1]["spec"]["selector"]["matchLabels"]
    pods = {
        kind: item["metadata"] if kind == "Pod" else item["spec"]["template"]["metadata"]
        for kind in ("Deployment", "Job", "Pod")
        for item in of_kind(objects, kind)
    }
    assert [kind for kind, meta in pods.items() if selected.items() <= meta["labels"].items()] == ["Deployment"]


def test_the_rule_has_what_the_plain_file_has_with_the_braces_of_prometheus_untouched() -> None:
    (rule,) = of_kind(rendered({"monitoring.rules.recording": False}, api_versions=CRDS), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "files/alerts.yaml").read_text())


def test_the_runbooks_are_where_the_values_say() -> None:
    url = "https://runbooks.example/operations"
    (rule,) = of_kind(rendered({"monitoring.rules.runbookUrl": url}, api_versions=CRDS), "PrometheusRule")
    links = [
        each["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for each in group["rules"]
        if "alert" in each
    ]
    assert len(links) > 10
    assert all(link.startswith(f"{url}#glm") for link in links)


def test_alerts_can_be_left_out() -> None:
    rules = of_kind(rendered({"monitoring.rules.alerts": False}, api_versions=CRDS), "PrometheusRule")
    assert not [
        each for rule in rules for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each
    ]


def test_every_dashboard_is_a_config_map_that_the_sidecar_finds_and_files_in_a_folder() -> None:
    maps = of_kind(rendered(api_versions=CRDS), "ConfigMap")
    files = {path.name: path.read_text() for path in (CHART / "dashboards").glob("*.json")}
    assert len(files) == 5
    assert {name: text for each in maps for name, text in each["data"].items()} == {
        name: text.rstrip("\n") for name, text in files.items()
    }
    for each in maps:
        assert each["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert each["metadata"]["annotations"] == {"grafana_folder": "GLM"}
        assert sum(map(len, each["data"].values())) < 2**19  # a ConfigMap takes 1 MiB, and so does a release of Helm


@pytest.mark.parametrize(
    ("credentials", "files"),
    [
        (TOKEN, {"BEARER_TOKEN": "token-of-ours"}),
        (BASIC, {"USERNAME": "user", "PASSWORD": "user"}),
    ],
)
def test_secrets_for_prometheus_are_mounted_read_only_where_the_settings_look_for_them(
    credentials: dict[str, str], files: dict[str, str]
) -> None:
    values = SECRETS | credentials
    spec = next(spec for name, spec in pod_specs(rendered(values)).items() if name.startswith("Deployment"))
    (container,) = spec["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"] if mount["name"] != "tmp"}
    assert all(mount["readOnly"] is True and "subPath" not in mount for mount in mounts.values())
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if volume["name"] != "tmp"}
    of_path = {mount["mountPath"]: secrets[name] for name, mount in mounts.items()}
    named = {name: value for name, value in operator_environment(values).items() if name.endswith("_FILE")}
    wanted = {"CA": "authority", "CERTIFICATE": "pair", "KEY": "pair"} | files
    assert {name: of_path[value.rpartition("/")[0]] for name, value in named.items()} == {
        f"GLM_OPERATOR_PROMETHEUS_{what}_FILE": secret for what, secret in wanted.items()
    }


def operator_pod(values: dict[str, Any] | None = None) -> dict[str, Any]:
    """The template of the operator's pod."""
    (deployment,) = of_kind(rendered(values), "Deployment")
    template: dict[str, Any] = deployment["spec"]["template"]
    return template


def test_the_pod_of_the_operator_is_annotated_as_those_of_workers_are() -> None:
    pod = operator_pod()
    (port,) = (port for port in pod["spec"]["containers"][0]["ports"] if port["name"] == "management")
    assert pod["metadata"]["annotations"] == {
        names.SCRAPE_ANNOTATION: "true",
        names.SCRAPE_PORT_ANNOTATION: str(port["containerPort"]),
        names.SCRAPE_PATH_ANNOTATION: names.METRICS_PATH,
    }


def test_the_annotations_that_name_metrics_can_be_switched_off_and_overridden() -> None:
    off = {"monitoring.scrapeAnnotations": False}
    assert "annotations" not in operator_pod(off)["metadata"]
    assert operator_pod(off | {"podAnnotations": {"note": "ours"}})["metadata"]["annotations"] == {"note": "ours"}
    ours = {names.SCRAPE_ANNOTATION: "false", "note": "ours"}
    both = operator_pod({"podAnnotations": ours})["metadata"]["annotations"]
    assert {key: both[key] for key in ours} == ours
    assert names.SCRAPE_PORT_ANNOTATION in both


def test_values_of_the_version_before_render_with_annotations() -> None:
    """`helm upgrade --reuse-values` brings values without the new one."""
    assert names.SCRAPE_ANNOTATION in operator_pod({"monitoring.scrapeAnnotations": None})["metadata"]["annotations"]


def test_helm_refuses_two_ways_to_say_who_asks() -> None:
    sets = [f"--set={key}={value}" for key, value in (TOKEN | BASIC).items()]
    done = helm("template", "glm", str(CHART), *sets)
    assert (done.returncode != 0, "exclude each other" in done.stderr) == (True, True)


def test_helm_refuses_a_password_in_the_url_and_does_not_print_it() -> None:
    done = helm("template", "glm", str(CHART), "--set=prometheus.url=https://me:pa55w0rd@prometheus.example")
    assert done.returncode != 0
    assert "prometheus.url has a user or a password in it; name a Secret" in done.stderr
    assert "pa55w0rd" not in done.stderr


@pytest.mark.parametrize("credentials", [TOKEN, BASIC], ids=["token", "basic"])
def test_the_operator_reads_every_setting_that_these_values_make_as_it_is_meant(
    credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = {"chat": 64, "batch": 1_000_000}
    environment = operator_environment(
        SECRETS | credentials | {"gpuBudgets": budgets, "prometheus.recordingRules": True}
    )
    ours = {name: value for name, value in environment.items() if name.startswith("GLM_OPERATOR_")}
    unknown = {name.removeprefix("GLM_OPERATOR_").lower() for name in ours} - set(OperatorSettings.model_fields)
    assert unknown == set()
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert settings.prometheus_url == SECRETS["prometheus.url"]
    assert settings.prometheus_recording_rules
    assert settings.gpu_budgets == budgets


def test_without_these_values_the_operator_gets_none_of_these_settings() -> None:
    assert not [name for name in operator_environment({}) if "PROMETHEUS" in name or "BUDGET" in name]
