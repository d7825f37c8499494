"""A Board as Grafana's JSON, by grafana-foundation-sdk: the same Board gives the same bytes."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models

from grafana.board import Board, Panel, Row, Step
from grafana.lines import OF, Line, decisions

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOKS = "docs/operations.md"
"""Replaced by the chart with monitoring.rules.runbookUrl."""

ANY_SERIES = '__name__=~"glm_group_state|glm_operator_condition"'
VARIABLES = {
    "namespace": ("Namespace", f"label_values({{{ANY_SERIES}}}, namespace)"),
    "deployment": ("Deployment", f'label_values({{{ANY_SERIES}, namespace=~"$namespace"}}, deployment)'),
    "slo_class": ("Class", f"label_values(glm_requests_received_total{{{OF}}}, slo_class)"),
}
AnyPanel = timeseries.Panel | stat.Panel | statetimeline.Panel | bargauge.Panel


def grafana_json(board: Board, others: Sequence[Board]) -> str:
    """Return the JSON of a dashboard, with links to the others."""
    made = (
        dashboard.Dashboard(f"GLM / {board.title}")
        .uid(f"glm-{board.slug}")
        .description(board.text)
        .tags(["glm-operator"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for name in board.variables:
        made = made.with_variable(_variable(name))
    for other in others:
        if other.slug != board.slug:
            made = made.link(
                dashboard.DashboardLink(other.title)
                .type(models.DashboardLinkType.LINK)
                .url(f"/d/glm-{other.slug}")
                .include_vars(True)
                .keep_time(True)
            )
    made = made.link(dashboard.DashboardLink("Runbooks").type(models.DashboardLinkType.LINK).url(f"{RUNBOOKS}#alerts"))
    if board.has_decisions:
        made = made.annotation(
            dashboard.AnnotationQuery()
            .name("Decisions")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("purple")
            .expr(decisions())
        )
    number = 0
    for row in board.rows:
        made = made.with_row(_row(row))
        for panel in row.panels:
            number += 1
            made = made.with_panel(_panel(panel, number))
    whole: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    for annotation in whole.get("annotations", {}).get("list", []):
        # Of Prometheus's own annotations, which the SDK's model does not have.
        annotation |= {
            "titleFormat": "{{deployment}}: {{direction}} for {{reason}}",
            "textFormat": "limited by: {{limit}}",
            "tagKeys": "reason,direction,limit",
            "useValueForTime": False,
        }
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _variable(name: str) -> dashboard.QueryVariable:
    label, query = VARIABLES[name]
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(text="All", value="$__all"))
    )


def _row(row: Row) -> dashboard.Row:
    return dashboard.Row(row.title)


def _panel(panel: Panel, number: int) -> AnyPanel:
    made = _bare(panel)
    made = (
        made.id(number)
        .title(panel.title)
        .description(textwrap.dedent(panel.text))
        .datasource(SOURCE)
        .unit(panel.unit)
        .no_value(panel.nothing)
        .height(panel.height)
        .span(panel.width)
        .mappings(_mappings(panel))
    )
    if panel.steps:
        made = made.thresholds(_thresholds(panel.steps))
    if panel.low is not None:
        made = made.min(panel.low)
    if panel.high is not None:
        made = made.max(panel.high)
    if panel.decimals is not None:
        made = made.decimals(panel.decimals)
    if panel.runbook is not None:
        link = dashboard.DashboardLink(f"Runbook {panel.runbook}").url(f"{RUNBOOKS}#{panel.runbook.lower()}")
        made = made.links([link.target_blank(True)])
    for place, line in enumerate(panel.lines):
        made = made.with_target(_query(line, chr(ord("A") + place), is_instant=panel.kind in ("number", "bars")))
    return made


def _bare(panel: Panel) -> AnyPanel:
    """Return a panel of the kind that it is, with what only this kind has."""
    if panel.kind == "number":
        return _number()
    if panel.kind == "bars":
        return _bars()
    return _states() if panel.kind == "states" else _curve(panel)


def _query(line: Line, ref: str, *, is_instant: bool) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(line.expr).legend_format(line.legend).ref_id(ref)
    return query.instant() if is_instant else query.range()


def _curve(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 5)
        .show_points(looks.VisibilityMode.AUTO)
        .span_nulls(False)
        .legend(common.VizLegendOptions().display_mode(looks.LegendDisplayMode.LIST).placement(looks.LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    )  # fmt: skip
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    if panel.steps:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphTresholdsStyleMode.DASHED))
    for place, line in enumerate(panel.lines):
        if line.is_limit:
            dashed = {"fill": "dash", "dash": [8, 6]}
            made = made.override_by_query(
                chr(ord("A") + place),
                [
                    models.DynamicConfigValue("custom.lineStyle", dashed),
                    models.DynamicConfigValue("custom.fillOpacity", 0),
                    models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "red"}),
                ],
            )
    return made


def _number() -> stat.Panel:
    return (
        stat.Panel()
        .graph_mode(looks.BigValueGraphMode.NONE)
        .color_mode(looks.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def _bars() -> bargauge.Panel:
    return (
        bargauge.Panel()
        .orientation(looks.VizOrientation.HORIZONTAL)
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def _states() -> statetimeline.Panel:
    return (
        statetimeline.Panel()
        .show_value(looks.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .legend(common.VizLegendOptions().show_legend(False).display_mode(looks.LegendDisplayMode.LIST).placement(looks.LegendPlacement.BOTTOM))
    )  # fmt: skip


def _thresholds(steps: Sequence[Step]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


def _mappings(panel: Panel) -> list[models.ValueMapping]:
    nothing = models.DashboardSpecialValueMapOptions(
        match=models.SpecialValueMatch.NULL_AND_NAN, result=models.ValueMappingResult(text=panel.nothing)
    )
    found: list[models.ValueMapping] = [models.SpecialValueMap(options=nothing)]
    if panel.names:
        named = {value: models.ValueMappingResult(text=text) for value, text in panel.names.items()}
        found.append(models.ValueMap(options=named))
    return found
