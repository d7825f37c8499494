"""The alerts by promtool: each fires when it should, and at nothing else. docs/operations.md has a runbook for each."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from integration.prometheus_process import require_prometheus

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "charts/glm-operator/files/alerts.yaml"
RECORDING = ROOT / "charts/glm-operator/files/recording.yaml"
TESTS = ROOT / "tests/rules"
MOMENTS = TESTS / "for.yaml"

SITUATIONS = ("fires", "does not fire", "idle", "counter reset", "stale target", "group restart")
"""What each alert is tested in; the names of its tests begin with them."""


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    require_prometheus()
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize("rules", [ALERTS, RECORDING], ids=lambda path: path.stem)
def test_prometheus_takes_the_plain_rules_file(rules: Path) -> None:
    done = promtool("check", "rules", str(rules))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long  # the moments below are of all alerts
@pytest.mark.parametrize("alert", alerts())
def test_the_alert_fires_when_it_should_and_at_nothing_else(alert: str) -> None:
    done = promtool("test", "rules", str(TESTS / f"{alert}.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts())
def test_the_alert_is_tested_in_every_situation(alert: str) -> None:
    tests = yaml.safe_load((TESTS / f"{alert}.yaml").read_text())["tests"]
    assert {test["name"].partition(":")[0] for test in tests} == set(SITUATIONS)
    assert {each["alertname"] for test in tests for each in test["alert_rule_test"]} == {alert}
    for test in tests:
        is_expected = any(each["exp_alerts"] for each in test["alert_rule_test"])
        if test["name"].startswith("fires"):
            assert is_expected, test["name"]
        if test["name"].startswith(("does not fire", "idle")):
            assert not is_expected or "for the group beside it" in test["name"], test["name"]


@pytest.mark.parametrize(("alert", "rule"), alerts().items())
def test_the_runbook_of_the_alert_says_what_to_look_at_and_what_to_do(alert: str, rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    text = (ROOT / page).read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-"): line
        for line in re.findall(r"^### (.+)$", text, re.MULTILINE)
    }
    assert headings[anchor] == alert
    section = text.partition(f"### {alert}\n")[2].partition("\n### ")[0]
    look, _, do = section.partition("\nDo:\n")
    assert "\nLook at:\n- " in look
    assert do.startswith("- ")


def test_every_alert_says_how_bad_it_is_and_what_is_the_case() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name


def test_every_alert_fires_at_its_moment_and_no_step_earlier() -> None:
    done = promtool("test", "rules", str(MOMENTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_moment_of_every_alert_is_pinned_by_the_step_before_it() -> None:
    whole = yaml.safe_load(MOMENTS.read_text())
    assert whole["evaluation_interval"] == "15s"
    found = {}
    for test in whole["tests"]:
        before, then = test["alert_rule_test"]
        assert _seconds(then["eval_time"]) - _seconds(before["eval_time"]) == 15, test["name"]
        assert (before["exp_alerts"], len(then["exp_alerts"])) == ([], 1), test["name"]
        assert test["name"].startswith(f"{before['alertname']}: "), test["name"]
        found[then["alertname"]] = test["name"].partition(": ")[2]
    assert found == {name: f"for {rule['for']}" if "for" in rule else "at once" for name, rule in alerts().items()}


def _seconds(duration: str) -> int:
    """Return a duration of promtool, as in 2m45s."""
    return sum(int(number) * {"m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([ms])", duration))


def test_no_test_is_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in TESTS.glob("*.yaml")} == {*alerts(), MOMENTS.stem}
