"""Whether workers know the settings that their pods were given, in the words of a condition. Pure."""

from glm_operator.status.facts import Facts
from glm_operator.status.slo import Said

MOST_NAMED = 20


def settings_known(facts: Facts) -> Said:
    """Return whether every group that serves knows all its settings. A worker ignores those that it does not know."""
    serving = {name: report for name, report in sorted(facts.reports.items()) if report.state == "serving"}
    ignoring = {name: report.unknown_settings for name, report in serving.items() if report.unknown_settings}
    if ignoring:
        told = "; ".join(f"{name}: {', '.join(settings)}" for name, settings in ignoring.items())
        return "False", "SettingsIgnored", f"the worker image is of another version, and ignores {told}"
    silent = [name for name, report in serving.items() if not report.tells_settings]
    if silent:
        names = ", ".join(silent[:MOST_NAMED])
        return "Unknown", "SettingsUnheard", f"{names}: the worker image is of an older version, which does not say"
    if not facts.members:
        return "Unknown", "ScaledToZero", "no group is wanted"
    if not serving:
        return facts.said_before("SettingsKnown") or ("Unknown", "SettingsUnheard", "no group was heard yet")
    return "True", "SettingsTaken", f"{', '.join([*serving][:MOST_NAMED])}: all settings are known"
