"""Every reason of a condition or an Event, and what to do about it, as the runbook docs/operations.md."""

from glm_operator.api.reasons import REASONS, Severity
from glm_operator.api.status import CONDITION_TYPES, GROUP_STATES

HEADER = """# Operations

Generated from `operator/glm_operator/api/reasons.py`, `api/status.py` and `docs/runbooks/alerts.md` by `make crds`.
Edit there.

Start with `kubectl get glmd` (column Reason), then `kubectl describe glmd NAME`: every condition has a reason of this
list and a message with the value. `kubectl glm rollout status NAME` follows a rollout; `history`, `undo`, `pause`,
`resume` and `adopt` are beside it.

How to give and take keys, set limits and budgets, read usage, the audit log and single traces:
[gateway.md](gateway.md).

## Conditions

| Condition | It is True when |
|---|---|
"""

TITLES = {
    Severity.BAD: "Reasons that want somebody to act",
    Severity.WAITING: "Reasons that pass by themselves",
    Severity.FINE: "Reasons of what is as it should be",
}


def reasons_markdown() -> str:
    """Return the runbook."""
    text = HEADER + "".join(f"| `{kind}` | {claim}. |\n" for kind, claim in CONDITION_TYPES.items())
    for severity, title in TITLES.items():
        text += f"\n## {title}\n\n| Reason | What is the case | What to do |\n|---|---|---|\n"
        for reason, meaning in REASONS.items():
            if meaning.severity is severity:
                text += f"| `{reason}` | {_sentence(meaning.sentence)} | {meaning.remedy} |\n"
    text += "\n## States of a group\n\n| State | Meaning |\n|---|---|\n"
    return text + "".join(f"| `{state}` | {_sentence(meaning)} |\n" for state, meaning in GROUP_STATES.items())


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
