"""Whether workers know the settings that their pods were given, in the words of a condition. Pure."""

from glm_operator.status.facts import Facts
from glm_operator.status.slo import Said

MOST_NAMED = 20


def settings_known(facts: Facts) -> Said:
    """Return whether every group knows all its settings. A worker ignores those that it does not know.

    A group says so from its start on, before it serves. While one of them is not heard, what was claimed of the same
    spec stands.
    """
    if not facts.members:
        return "Unknown", "ScaledToZero", "no group is wanted"
    names = [group.name for group in facts.members]
    reports = [(name, facts.reports[name]) for name in names if name in facts.reports]
    ignored = [(name, ", ".join(report.unknown_settings)) for name, report in reports if report.unknown_settings]
    if ignored:
        told = "; ".join(f"{name} ignores {settings}" for name, settings in ignored)
        return "False", "SettingsIgnored", f"{told}: not known to its worker image"
    silent = _some([name for name, report in reports if not report.tells_settings])
    if silent:
        return "Unknown", "SettingsUnheard", f"{silent}: the worker image is of an older version, which does not say"
    unheard = [name for name in names if name not in facts.reports]
    if not unheard:
        return "True", "SettingsTaken", f"{_some([name for name, _ in reports])}: all settings are known"
    before = facts.said_before("SettingsKnown")
    is_of_this_spec = facts.before("SettingsKnown").get("observedGeneration") == facts.generation
    if before is not None and is_of_this_spec and before[1] in ("SettingsIgnored", "SettingsTaken"):
        return before
    return "Unknown", "SettingsUnheard", f"not heard yet: {_some(unheard)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED])
