"""Which revision of a deployment is the newest one, for who gives it a part of the callers of its own. Pure.

The target's, but while groups go back: of a deployment whose spec was taken back in the middle of a rollout, the
revision that it goes away from stays the newest, with its part, until its last group is gone. What the gateway's file
says now remembers that; the groups alone look alike in both directions.
"""

from glm_operator.observe.observed import Observed
from glm_operator.rollout.in_file import models_in_file
from glm_operator.rollout.target import Target


def newest_revision(target: Target, observed: Observed) -> str:
    """Return the revision that gets the part."""
    running = {group.revision for group in observed.groups.values() if group.exists}
    said = _said(target.name, observed)
    goes_back = target.revision in running and said in running and said != target.revision
    return said if goes_back and said is not None else target.revision


def _said(deployment: str, observed: Observed) -> str | None:
    """Return the revision in the gateway's file; None where that says none."""
    for own in models_in_file(deployment, observed)[:1]:
        canary = own.get("canary")
        return str(canary["revision"]) if isinstance(canary, dict) and "revision" in canary else None
    return None
