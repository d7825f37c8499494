"""A view as a terminal shows it. Pure."""

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from glm_operator.cli.status.view import GroupView, LatencyView, ThinkingView, View
from glm_operator.status import texts

SHOWN_CHANGES = 5
UNKNOWN = "-"
_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}
_BAD_IF_TRUE = ("Degraded",)


def draw(view: View) -> RenderableType:
    """Return the whole picture."""
    parts: list[RenderableType] = [_head(view), _groups(view)]
    if view.latencies:
        parts.append(_latencies(view))
    elif view.overall:
        shown = ", ".join(f"{name} {value}" for name, value in view.overall.items())
        parts.append(Text(f"Latency of all requests, five minutes: {shown}"))
    if view.thinking is not None:
        parts.append(_thinking(view.thinking))
    parts += [_scaling(view)]
    if view.signals:
        parts.append(_signals(view))
    if view.history:
        parts.append(_history(view))
    if view.cut_requests is not None:
        parts.append(Text(f"Requests that the end of a drain has cut: {view.cut_requests:,}"))
    parts += [_conditions(view), Text(view.note, style="dim")]
    spaced = [each for part in parts for each in (part, Text())]
    return Group(*spaced[:-1])


def _head(view: View) -> Text:
    return Text(f"{view.namespace}/{view.name}  {view.ready} groups ready", style="bold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _groups(view: View) -> Table:
    table = _table("Group", "State", "Running", "Waiting", "Oldest", "Tokens", "KV")
    for group in view.groups:
        table.add_row(*_group(group))
    return table


def _group(group: GroupView) -> tuple[str, ...]:
    oldest, kv = group.oldest_waiting_s, group.kv_usage
    return (
        group.name,
        group.state,
        *(UNKNOWN if value is None else str(value) for value in (group.running, group.waiting)),
        UNKNOWN if oldest is None else texts.seconds(oldest) if oldest else "0s",
        UNKNOWN if group.in_flight_tokens is None else str(group.in_flight_tokens),
        UNKNOWN if kv is None else f"{kv:.0%} {_bar(kv)}",
    )


def _bar(share: float, width: int = 10) -> str:
    filled = round(min(max(share, 0.0), 1.0) * width)
    return "█" * filled + "░" * (width - filled)


def _latencies(view: View) -> Table:
    table = _table("Class", "Signal", "Latency", "Promised", "Kept", "Attainment", "Budget left")
    classes = {each.name: each for each in view.classes}
    is_measured = any(each.type == "MetricsAvailable" and each.status == "True" for each in view.conditions)
    is_known = not any(
        each.type == "SLOMet" and each.status == "Unknown" and each.reason != "NoTraffic" for each in view.conditions
    )
    nothing = "no traffic" if is_measured and is_known else UNKNOWN
    last = ""
    for each in view.latencies:
        of_class = classes[each.slo_class]
        shares = ("", "") if each.slo_class == last else (of_class.attainment, of_class.budget_left)
        table.add_row(
            each.slo_class if each.slo_class != last else "",
            f"{each.signal} P{each.percentile}",
            each.latency or nothing,
            each.promised,
            _kept(each),
            *(UNKNOWN if share is None else share for share in shares),
        )
        last = each.slo_class
    return table


def _kept(latency: LatencyView) -> str:
    if latency.met is None:
        return UNKNOWN
    return "[green]yes[/green]" if latency.met else "[red]no[/red]"


def _thinking(thinking: ThinkingView) -> Text:
    by_default = "as the chat template has it" if thinking.mode == "Template" else thinking.mode
    said = f"Thinking {by_default}; Auto from score {thinking.auto_threshold:g}; reasoning {thinking.visibility}"
    if thinking.chats is None:
        return Text(f"{said}; shares are not measured")
    if thinking.thought is None:
        return Text(f"{said}; no chat came")
    said += f"; of {thinking.chats:,} chats {thinking.thought:.0%} thought"
    if thinking.auto_thought is not None:
        said += f", of the {thinking.auto_chats:,} that Auto decided about {thinking.auto_thought:.0%}"
    return Text(said)


def _scaling(view: View) -> Text:
    if view.desired is None:
        return Text(f"Scaling {view.mode}: {view.current} groups")
    is_told = view.limited_by is None or f"limited by {view.limited_by}" in (view.message or "")
    limit = "" if is_told else f", limited by {view.limited_by}"
    source = f" (from {view.source})" if view.source else ""
    said = f": {view.message}" if view.message else ""
    return Text(f"Scaling {view.mode}: {view.current} groups, wants {view.desired}{limit}{source}{said}")


def _signals(view: View) -> Table:
    """Return the inputs. A status repeats one only when it has changed by a tenth: what is old is not stale."""
    table = _table("Input", "State", "Value", "As of")
    for each in view.signals:
        age_s = each.get("age_s")
        table.add_row(
            escape(str(each.get("name", ""))),
            str(each.get("state", "")),
            str(each.get("value", UNKNOWN)),
            UNKNOWN if age_s is None else f"{max(0, age_s)}s ago",
        )
    return table


def _history(view: View) -> Table:
    table = _table("When", "Groups", "Why", "")
    for each in view.history[:SHOWN_CHANGES]:
        limit = f" (limited by {each['limitedBy']})" if each.get("limitedBy") else ""
        table.add_row(
            str(each.get("time", "")),
            f"{each.get('from')} -> {each.get('to')}",
            str(each.get("reason", "")),
            escape(f"{each.get('message', '')}{limit}"),
        )
    return table


def _conditions(view: View) -> Table:
    table = _table("Condition", "", "Reason", "")
    for each in view.conditions:
        is_reversed = each.type in _BAD_IF_TRUE and each.status in ("True", "False")
        style = _STYLES.get({"True": "False", "False": "True"}[each.status] if is_reversed else each.status, "")
        if each.type == "ScalingActive" and each.reason in ("ScalingDisabled", "ScalingExternal", "ScalingObserving"):
            style = ""
        table.add_row(each.type, Text(each.status, style=style), each.reason, escape(each.message))
    return table
