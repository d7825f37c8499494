"""Which permissions the audit log has in use, and which of the granted ones it has not. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from glm_operator.cluster.rbac import Rule


class Use(NamedTuple):
    """A verb on a resource (`plural` or `plural/subresource`) of an API group."""

    api_group: str
    resource: str
    verb: str


def granted(rules: Iterable[Rule]) -> set[Use]:
    """Return what the operator may for its own use."""
    own = [rule for rule in rules if not rule.is_for_others]
    return {Use(rule.api_group, rule.resource, verb) for rule in own for verb in rule.verbs}


def used(events: Iterable[Mapping[str, Any]]) -> set[Use]:
    """Return what the requests needed: for an apply that made an object the API server asks for `create`, too."""
    uses: set[Use] = set()
    for event in events:
        about = event.get("objectRef", {})
        resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource"))))
        verbs = [event["verb"]]
        if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201:
            verbs.append("create")
        uses |= {Use(about.get("apiGroup", ""), resource, verb) for verb in verbs}
    return uses


def unused(rules: Iterable[Rule], events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each granted verb that no request needed."""
    return [f"{use.verb} {use.resource} ({use.api_group or 'core'})" for use in sorted(granted(rules) - used(events))]
