"""Grafana's dashboards without Grafana: generated, well formed, and about series that exist."""

import itertools
import re
from typing import Any

import promql_parser
import pytest
import yaml

from contract.dashboards import ROOT, anchors, boards, committed, generator, panels, selectors, series, with_variables

SLUGS = [board.slug for board in boards()]
RULES = [ROOT / "charts/glm-operator/files" / name for name in ("alerts.yaml", "recording.yaml")]


def expressions(dashboard: dict[str, Any]) -> list[str]:
    asked = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    return asked + [each["expr"] for each in dashboard.get("annotations", {}).get("list", [])]


def rule_expressions() -> list[str]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_the_dashboards_in_the_chart_are_those_that_the_code_makes() -> None:
    made = generator().generated()
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make dashboards`"
    assert {path.name for path in next(iter(made)).parent.iterdir()} == {path.name for path in made}


def test_making_them_twice_gives_the_same_bytes() -> None:
    assert generator().generated() == generator().generated()


@pytest.mark.parametrize("slug", SLUGS)
def test_every_expression_parses_with_its_variables_filled_in(slug: str) -> None:
    for expr in expressions(committed(slug)):
        filled = with_variables(expr)
        assert "$" not in filled, filled
        promql_parser.parse(filled)


@pytest.mark.parametrize(
    "asked",
    [
        *(pytest.param(expressions(committed(slug)), id=slug) for slug in SLUGS),
        pytest.param(rule_expressions(), id="rules"),
    ],
)
def test_every_series_and_label_that_is_asked_for_is_one_that_the_code_has(asked: list[str]) -> None:
    for expr in asked:
        found = list(selectors(with_variables(expr)))
        assert len(found) == len(re.findall(r"\bglm_\w+", expr)), expr
        for selector in found:
            labels = series().get(selector.name)
            assert labels is not None, f"nobody has {selector.name}: {expr}"
            wrong = {matcher.name for matcher in selector.matchers.matchers} - labels - {"le"}
            assert wrong == set(), f"{selector.name} has no {wrong}: {expr}"


@pytest.mark.parametrize("slug", SLUGS)
def test_rates_follow_the_interval_of_scrapes_and_nothing_sums_up_lifetimes(slug: str) -> None:
    for expr in expressions(committed(slug)):
        for function, window in re.findall(r"\b(rate|irate|increase)\([^()]*\[([^\]]+)\]", expr):
            assert function != "irate"
            assert window == "$__rate_interval" if function == "rate" else window != "$__interval", expr
        lifetimes = re.sub(r"\b(rate|increase)\([^()]*\)", "", expr)
        assert not re.search(r"\w+_(total|sum|count|bucket)\b", lifetimes), expr


@pytest.mark.parametrize("slug", SLUGS)
def test_every_division_and_quantile_leaves_out_what_is_nothing(slug: str) -> None:
    for expr in expressions(committed(slug)):
        for divisor in re.findall(r"/ (?!3600000)(\S+ ?\S*)", expr):
            assert divisor.startswith(("(", "on (")), expr
        if "histogram_quantile" in expr:
            assert re.search(r"\) and on \([a-z_, ]*\) \(sum.*_count.*> 0\)$", expr), expr


@pytest.mark.parametrize("slug", SLUGS)
def test_histograms_are_added_up_by_class_for_each_class_has_other_edges(slug: str) -> None:
    for expr in expressions(committed(slug)):
        for by, name in re.findall(r"sum by \(([^)]*)\) \(rate\((glm_\w+)_bucket", expr):
            if "slo_class" in series()[f"{name}_bucket"]:
                assert {"slo_class", "le"} <= set(by.split(", ")), expr


@pytest.mark.parametrize("slug", SLUGS)
def test_every_panel_has_what_a_reader_needs(slug: str) -> None:
    for panel in panels(committed(slug)):
        config = panel["fieldConfig"]["defaults"]
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert config["unit"], panel["title"]
        assert config["noValue"], panel["title"]
        special = [each for each in config["mappings"] if each["type"] == "special"]
        assert [each["options"]["match"] for each in special] == ["null+nan"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize("slug", SLUGS)
def test_what_is_measured_of_traffic_says_no_traffic_where_there_is_none(slug: str) -> None:
    board = next(each for each in boards() if each.slug == slug)
    for panel in board.panels():
        if any(line.due == "traffic" for line in panel.lines):
            assert panel.nothing == "no traffic", panel.title


@pytest.mark.parametrize("slug", SLUGS)
def test_the_variables_choose_source_namespace_deployment_and_class(slug: str) -> None:
    dashboard = committed(slug)
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names[:3] == ["datasource", "namespace", "deployment"]
    assert ("slo_class" in names) == (slug in ("deployment", "gateway"))
    used = set(re.findall(r"\$\{?(\w+)", str(dashboard))) - {
        "__rate_interval",
        "__range",
        "__interval",
        "__interval_ms",
    }
    assert used <= {*names, "__all"}
    sources = {str(panel["datasource"]) for panel in panels(dashboard)}
    assert sources == {"{'type': 'prometheus', 'uid': '${datasource}'}"}


@pytest.mark.parametrize("slug", SLUGS)
def test_panels_have_numbers_of_their_own_and_none_covers_another(slug: str) -> None:
    dashboard = committed(slug)
    numbers = [panel["id"] for panel in panels(dashboard)]
    assert len(set(numbers)) == len(numbers)
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard["panels"]]
    for title, at in places:
        assert at["x"] + at["w"] <= 24, title
    for (one, a), (other, b) in itertools.combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"{one} covers {other}"


@pytest.mark.parametrize("slug", SLUGS)
def test_links_lead_to_runbooks_that_exist(slug: str) -> None:
    links = [link["url"] for panel in panels(committed(slug)) for link in panel.get("links", [])]
    assert len(links) >= 3
    assert {link.partition("#")[2] for link in links} <= anchors()
    assert {link.partition("#")[0] for link in links} == {"docs/operations.md"}


def test_dashboards_link_to_each_other_and_keep_what_is_chosen() -> None:
    for slug in SLUGS:
        links = {link["url"]: link for link in committed(slug)["links"]}
        assert {f"/d/glm-{other}" for other in SLUGS if other != slug} <= set(links)
        assert all(link["includeVars"] and link["keepTime"] for url, link in links.items() if url.startswith("/d/"))


def test_decisions_are_annotations_with_their_reason_and_limit() -> None:
    for slug in ("fleet", "deployment", "autoscaler"):
        (annotation,) = committed(slug)["annotations"]["list"]
        assert "{{reason}}" in annotation["titleFormat"]
        assert "{{limit}}" in annotation["textFormat"]
