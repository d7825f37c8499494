"""What the deployment wants of requests: read from a body or from settings, and the one that holds now. No I/O.

The operator makes the body and the same digest of it (docs/design/0008-api.md; tests/contract compares both).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import get_args

import msgspec

from glm_worker.errors import ConfigError, RequestRefused
from glm_worker.messages import Effort, Policy, ReasoningPolicy
from glm_worker.settings import WorkerSettings

EFFORTS: tuple[Effort, ...] = get_args(Effort)
MAX_TOKENS = 10_000_000  # of a thought: as many as any prompt and answer together
MAX_ROLES = 32
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}")

_decoder = msgspec.json.Decoder(Policy)


class LivePolicy:
    """The policy that holds now. Whoever handles a request reads `current` once, so that one request has one policy."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.current = policy or Policy()


def parse_policy(body: bytes) -> Policy:
    """Return the policy in a JSON body. Raises RequestRefused (422) with a sentence on the first mistake in it."""
    try:
        policy = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(f"the body cannot be read as a policy: {error}", status=422) from error
    for mistake in _mistakes(policy, lambda field: field):
        raise RequestRefused(mistake, status=422)
    return policy


def policy_digest(policy: Policy) -> str:
    """Return 16 hexadecimal digits that stand for this policy: sha256 of its JSON in its one canonical form."""
    canonical = json.dumps(msgspec.to_builtins(policy), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def until_told(policy: Policy) -> Policy:
    """Return what holds while what the deployment wants is not known: nobody is shown what it may hide.

    The headers of a proxy count, because a role is shown nothing either, and tenants that are told apart see less of
    each other than all of them as one.
    """
    reasoning = msgspec.structs.replace(policy.reasoning, visibility="hidden", visible_to=[])
    return Policy(reasoning=reasoning, trust_proxy_headers=True)


def policy_of(settings: WorkerSettings) -> Policy:
    """Return what holds until a policy is put: what settings say, or less where they say that one will be.

    Raises ConfigError, naming the setting.
    """
    policy = Policy(
        reasoning=ReasoningPolicy(
            default=settings.reasoning_default,
            auto_threshold=settings.reasoning_auto_threshold,
            max_thinking_tokens=settings.reasoning_max_tokens or None,
            effort_tokens=_budgets(settings.reasoning_effort_tokens),
            visibility=settings.reasoning_visibility,
            visible_to=_listed(settings.reasoning_visible_to),
            fields=settings.reasoning_fields,
        ),
        trust_proxy_headers=settings.trust_proxy_headers,
    )
    for mistake in _mistakes(policy, _setting):
        raise ConfigError(mistake)
    return until_told(policy) if settings.awaits_policy else policy


_SETTINGS = {"reasoning.max_thinking_tokens": "GLM_REASONING_MAX_TOKENS"}
"""Settings that are not named as the field of the policy is."""


def _setting(field: str) -> str:
    return _SETTINGS.get(field, f"GLM_{field.replace('.', '_').upper()}")


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")] if text.strip() else []


def _budgets(text: str) -> dict[Effort, int]:
    """Return what `low=1024,high=8192` says."""
    found: dict[Effort, int] = {}
    for part in _listed(text):
        name, equals, tokens = (each.strip() for each in part.partition("="))
        effort = next((each for each in EFFORTS if each == name), None)
        is_number = tokens.isascii() and tokens.isdecimal() and len(tokens) <= len(str(MAX_TOKENS))
        if effort is None or not equals or not is_number:
            raise ConfigError(
                f"GLM_REASONING_EFFORT_TOKENS has {part[:64]!r}; allowed is EFFORT=TOKENS with commas between,"
                f" as in low=1024,high=8192; efforts are {', '.join(EFFORTS)}"
            )
        if effort in found:
            raise ConfigError(f"GLM_REASONING_EFFORT_TOKENS has {effort} twice")
        found[effort] = int(tokens)
    return found


def _mistakes(policy: Policy, named: Callable[[str], str]) -> Iterable[str]:
    """Yield what is wrong. named: how a field is called where the policy was written."""
    reasoning = policy.reasoning
    if not 0 <= reasoning.auto_threshold <= 1:
        name = named("reasoning.auto_threshold")
        yield f"{name} is {reasoning.auto_threshold:g}; allowed is 0 to 1: `auto` thinks from this score on"
    yield from _mistakes_of_tokens(reasoning.max_thinking_tokens, reasoning.effort_tokens, named)
    yield from _mistakes_of_roles(reasoning.visible_to, named("reasoning.visible_to"))
    visibility, visible_to = named("reasoning.visibility"), named("reasoning.visible_to")
    if reasoning.visibility == "by_role":
        if not reasoning.visible_to:
            yield f"{visibility} is by_role and {visible_to} is empty; name the roles that see reasoning"
        if not policy.trust_proxy_headers:
            yield (
                f"{visibility} is by_role and {named('trust_proxy_headers')} is false; roles come in the header"
                " x-glm-role of a gateway, which must be trusted"
            )
    elif reasoning.visible_to:
        yield f"{visible_to} names roles and {visibility} is {reasoning.visibility}; it must be by_role"


def _mistakes_of_tokens(most: int | None, budgets: Mapping[Effort, int], named: Callable[[str], str]) -> Iterable[str]:
    if most is not None and not 1 <= most <= MAX_TOKENS:
        yield f"{named('reasoning.max_thinking_tokens')} is {most}; allowed is 1 to {MAX_TOKENS}"
    for effort, tokens in budgets.items():
        if not 1 <= tokens <= MAX_TOKENS:
            yield f"{effort} of {named('reasoning.effort_tokens')} is {tokens}; allowed is 1 to {MAX_TOKENS}"


def _mistakes_of_roles(roles: Sequence[str], name: str) -> Iterable[str]:
    if len(roles) > MAX_ROLES:
        yield f"{name} has {len(roles)} roles; at most {MAX_ROLES} are allowed"
    for role in roles:
        if _ROLE.fullmatch(role) is None:
            yield (
                f"{name} has the role {role[:64]!r}; allowed are 1 to 64 letters, digits and . _ : / @ - after a"
                " letter or digit"
            )
        if roles.count(role) > 1:
            yield f"{name} has the role {role} twice"
