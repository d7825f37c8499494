"""docs/gateway.md says what the gateway takes: its examples are taken, and no field is missing."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from glm_edge.json_bounds import DEFAULT
from glm_gateway.access.decide import OPEN_PATHS
from glm_gateway.audit.config import AuditConfig
from glm_gateway.config.file import config_in
from glm_gateway.ladder.config import OverloadConfig
from glm_gateway.ladder.ladder import Rung
from glm_gateway.limits.config import LimitsConfig, QuotasConfig
from glm_gateway.limits.expect import FIRST, FLOOR
from glm_gateway.limits.store_config import StoreConfig
from glm_gateway.limits.tokens import PICO, Usage
from glm_gateway.part import Part
from glm_gateway.routing.config import CanaryConfig
from glm_gateway.traces.config import TraceConfig
from glm_gateway.upstreams.outgoing import PATHS
from glm_gateway.usage.config import MIN_RETENTION_DAYS, UsageConfig
from glm_gateway.usage.entry import Entry
from glm_gateway.usage.ledger import Ledger
from glm_gateway.usage.query import usage_answer
from glm_operator.api.gateway import Gateway
from glm_operator.api.spec import Rollout, parse_deployment
from glm_operator.cli import app

TEXT = (Path(__file__).resolve().parents[2] / "docs/gateway.md").read_text()


def block(language: str, sign: str = "") -> str:
    """Return the example that has a sign in it."""
    (found,) = (each for each in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if sign in each)
    return str(found)


def test_the_limits_of_the_example_are_taken() -> None:
    quotas = QuotasConfig.model_validate(yaml.safe_load(block("yaml", "pricesByModel")))
    assert [scope.name for scope in quotas.scopes("alice", "research", "m")] == ["key alice", "group research"]


def test_the_first_example_is_a_spec_that_the_operator_takes() -> None:
    said = yaml.safe_load(block("yaml", "claimName: usage"))["spec"]
    model = {"name": "glm-nano", "source": "builtin://glm-nano"}
    body = {
        "apiVersion": "glm-operator.io/v1alpha1",
        "kind": "GLMDeployment",
        "metadata": {"name": "nano", "namespace": "default"},
        "spec": {"model": model, "hardware": {"device": "cpu"}, **said},
    }
    assert parse_deployment(body).spec.gateway is not None


def test_the_part_of_a_new_revision_is_a_spec_that_the_operator_takes() -> None:
    said = yaml.safe_load(block("yaml", "canary:"))["spec"]
    canary, rollout = Gateway.model_validate(said["gateway"]).canary, Rollout.model_validate(said["rollout"])
    assert canary is not None
    assert (canary.weight, rollout.paused) == (10, True)
    (in_file,) = re.findall(r"`canary: (\{[^`]*\})`", TEXT)
    assert CanaryConfig.model_validate(yaml.safe_load(in_file)).may_fall is False


LEAST = {"auth": {"mode": "Keys", "keysFolder": "/keys"}, "models": [{"name": "m", "groups": {"file": "/g"}}]}


def test_the_names_of_the_example_are_taken() -> None:
    told = block("yaml", "\nnames:").replace("{…}", "{file: /g}")
    config = config_in(json.dumps({**LEAST, **yaml.safe_load(told)}))
    assert [name.name for name in config.names] == ["air", "chat"]


def test_the_overload_of_the_example_is_what_holds_without_it() -> None:
    told = yaml.safe_load(block("yaml", "shortThoughts"))
    assert config_in(json.dumps({**LEAST, **told})).overload == OverloadConfig()
    assert [rung.word for rung in Rung if rung and f"`{rung.word}`" not in TEXT] == []
    assert [path for path in PATHS if f"`{path}`" not in TEXT] == []


@pytest.mark.parametrize("mode", ["JWT", "Judge"])
def test_the_ways_to_know_callers_are_taken(mode: str) -> None:
    told = yaml.safe_load(block("yaml", f"mode: {mode}"))
    assert config_in(json.dumps({**LEAST, **told})).auth.mode == mode


def test_tls_and_cors_of_the_text_are_taken() -> None:
    for name in ("tls", "cors"):
        (told,) = re.findall(rf"`({name}: \{{[^`]*\}})`", TEXT)
        assert getattr(config_in(json.dumps({**LEAST, **yaml.safe_load(told)})), name) is not None


def test_the_bounds_of_bodies_are_those_that_hold() -> None:
    text, of = " ".join(TEXT.split()), DEFAULT
    said = f"{of.containers:,} objects and lists, {of.strings:,} strings, {of.values:,} values, {of.depth} levels"
    assert f"{said} and {of.digits} digits" in text


@pytest.mark.parametrize(
    ("sign", "part"),
    [("store:", StoreConfig), ("usage: {folder", UsageConfig), ("audit:", AuditConfig), ("trace:", TraceConfig)],
)
def test_the_examples_of_the_file_are_taken_and_have_every_field(sign: str, part: type[Part]) -> None:
    said = yaml.safe_load(block("yaml", sign))[sign.partition(":")[0]]
    part.model_validate(said)
    missing = {str(field.alias) for field in part.model_fields.values()} - set(said)
    assert [name for name in missing if f"`{name}`" not in TEXT] == []


def test_every_field_of_limits_is_told() -> None:
    assert [str(field.alias) for field in LimitsConfig.model_fields.values() if f"`{field.alias}`" not in TEXT] == []


def test_the_usage_of_the_example_is_what_is_told() -> None:
    told = json.loads(block("json", "object"))
    prices = QuotasConfig.model_validate(yaml.safe_load(block("yaml", "pricesByModel")))
    used = Usage(prompt=41_000, cached=30_000, answer=2100, thinking=900)
    ledger = Ledger()
    for number in range(12):
        part = used if number == 0 else Usage()
        ledger.add(
            Entry(
                id=str(number),
                at=1_795_953_600.0,  # 2026-11-29 12:00
                key="alice",
                model="glm-4.5-air",
                api="openai",
                outcome="finished",
                prompt=part.prompt,
                cached=part.cached,
                answer=part.answer,
                thinking=part.thinking,
                cost=prices.cost("glm-4.5-air", part),
                e2e_s=5.1,
            )
        )
    found = usage_answer(
        ledger, "alice", told["start"], told["end"], today="2026-11-29", kept_since="2026-10-01", journal="1a2b3c4d"
    )
    assert found == told


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    retention, unwritten = (UsageConfig.model_fields[name].default for name in ("retention_days", "max_unwritten"))
    assert f"{FIRST:,} tokens while there is none, never less than {FLOOR}," in " ".join(TEXT.split())
    assert f"`retentionDays` ({retention}; at least {MIN_RETENTION_DAYS})" in TEXT
    assert f"`maxUnwritten` entries ({unwritten:,})" in TEXT
    assert all(f"`{path}`" in TEXT for path in OPEN_PATHS if not path.startswith("/docs/"))
    assert PICO == 10**12


@pytest.mark.parametrize(
    "line",
    [
        line
        for each in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
        for line in each.splitlines()
        if line[:4] == "glm "
    ],
)
def test_every_command_of_the_page_is_there(line: str) -> None:
    _, keys, command, *arguments = re.split(r"\s+", re.sub(r"\s*[>#].*", "", line))
    shown = CliRunner().invoke(app, [keys, command, "--help"])
    assert shown.exit_code == 0
    assert all(argument in shown.output for argument in arguments if argument.startswith("--"))
