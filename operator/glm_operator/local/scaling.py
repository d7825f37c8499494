"""What the controller of `glm local` decides, and the file in which it says so. Pure but for that file."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from glm_operator.api.spec import GLMDeploymentSpec
from glm_operator.autoscale.decision import Decision
from glm_operator.autoscale.signals import Signals, State

MAX_CHANGES = 10


class GroupsChange(msgspec.Struct, frozen=True, kw_only=True):
    """One decision that changed the number of groups."""

    time: str  # UTC
    before: int
    after: int
    reason: str
    message: str


class ScalingView(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller decided last, and on what."""

    mode: str
    desired: int
    current: int
    starting: int
    message: str
    limited_by: str | None = None
    source: str = "Workers"
    trouble: str = ""  # why the numbers are not there, or not from where they should be
    attainment: dict[str, float | None] = {}  # by class, the last five minutes; none without traffic
    unmeasured: list[str] = []  # classes of which nothing is known just now
    history: list[GroupsChange] = []  # newest first


def needs_controller(spec: GLMDeploymentSpec) -> bool:
    """Whether a process has to stay: it tells a gateway which groups there are, scales, promises, tells a policy."""
    return spec.front.is_wanted or scales_or_promises(spec) or not spec.policy.is_default


def scales_or_promises(spec: GLMDeploymentSpec) -> bool:
    """Whether a controller decides something, and shows it."""
    scales = spec.scaling is not None and spec.scaling.mode in ("Active", "Observe")
    return scales or bool(spec.slo.classes)


def groups_to_bring_up(spec: GLMDeploymentSpec, running: int | None) -> int:
    """Return how many groups `up` makes: what runs, where the controller keeps that number; else what the file says.

    running: None where nothing of the deployment does, not even its controller.
    """
    scaling = spec.scaling
    if scaling is None or scaling.mode != "Active" or scaling.max_groups is None or spec.replicas == 0:
        return spec.replicas
    kept = running if running or (running == 0 and scaling.may_be_zero) else spec.replicas
    return min(max(kept, scaling.min_groups), scaling.max_groups)


def indices_after(
    members: Collection[int], taken: Collection[int], wanted: int, load: Mapping[int, float]
) -> list[int]:
    """Return the indices of the groups that are to be: newcomers take the lowest free ones.

    members: groups that stay. taken: indices of which pods are still there. load: tokens in flight by index; of those
    that go the least loaded goes first, then the highest index.
    """
    staying = sorted(members, key=lambda index: (-load.get(index, 0.0), index))[:wanted]
    free = (index for index in range(len(taken) + wanted + 1) if index not in taken)
    return sorted([*staying, *(next(free) for _ in range(wanted - len(staying)))])


def newest_arrivals(signals: Signals) -> Signals:
    """Return the signals with what arrives as the newest samples show it, where that is less than in the whole window.

    The window is as long as it is for scrapes every 15 s. With samples that come every second a load that is over is
    over 30 s sooner. What rises stays as the window shows it: the law itself looks at the newest samples there, and
    knows how far chance goes.
    """
    shown = {
        name: replace(group, arrivals=group.arrivals_lately, prompt_tokens_arriving=group.prompt_tokens_arriving_lately)
        for name, group in signals.groups.items()
        if group.arrivals_lately is not None and group.prompt_tokens_arriving_lately is not None
    }
    arrived = sum(signals.groups[name].arrivals or 0.0 for name in shown)
    if sum(each.arrivals or 0.0 for each in shown.values()) >= arrived:
        return signals
    return replace(signals, groups={**signals.groups, **shown})


def view_of(mode: str, decision: Decision, signals: Signals, groups: int, history: list[GroupsChange]) -> ScalingView:
    """Return what is said of a decision. groups: how many there are now."""
    return ScalingView(
        mode=mode,
        desired=decision.desired,
        current=groups,
        starting=decision.starting,
        message=decision.message,
        limited_by=decision.limited_by,
        attainment={
            each.name: each.attainment.value if each.attainment.state is State.VALUE else None
            for each in signals.classes
            if each.attainment.is_known
        },
        unmeasured=[each.name for each in signals.classes if not each.attainment.is_known],
        history=history,
    )


def changed(history: list[GroupsChange], decision: Decision, at_s: float) -> list[GroupsChange]:
    """Return the history with a decision that was carried out."""
    change = GroupsChange(
        time=datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        before=decision.current,
        after=decision.desired,
        reason=decision.cause,
        message=decision.message,
    )
    return [change, *history][:MAX_CHANGES]


def write(path: Path, view: ScalingView) -> None:
    """Write whole or not at all."""
    temporary = path.with_suffix(".json.new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(view)))
    temporary.replace(path)


def read(path: Path) -> ScalingView | None:
    """Return what the controller said last; None when it said nothing yet, or an earlier version did."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ScalingView)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
