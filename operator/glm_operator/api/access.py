"""Who may ask, how much, and at what price: `spec.access`. An edit moves no group. Pure."""

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict

from glm_operator.api import rules
from glm_operator.api.duration import Duration, to_seconds
from glm_operator.api.fields import ObjectName, SpecModel
from glm_operator.api.forms import CLAIM_NAME_PATTERN, HEADER_VALUE_PATTERN, MONEY_PATTERN, URL_PATTERN

MAX_COUNT = 10**12
MAX_LIMITS = 500


def addressed(url: str) -> str:
    """Return a URL that has an address to connect to. Raises ValueError with what is wrong."""
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            raise ValueError("a host and a port from 1 on are needed")
    except ValueError as error:
        raise ValueError(f"{url[:100]} cannot be connected to: {error}") from None
    return url


def twice(names: Sequence[str]) -> str:
    """Return the names that are there more than once, in a text; empty for none."""
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


Auth = Literal["APIKeys", "OIDC", "External", "None"]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Money = Annotated[str, StringConstraints(pattern=MONEY_PATTERN, max_length=22)]
CallerName = Annotated[str, StringConstraints(pattern=HEADER_VALUE_PATTERN, max_length=255)]
"""Of a key, or as an issuer or a judge says who asks: a subject has at most 255 ASCII characters."""

GroupName = Annotated[str, StringConstraints(pattern=CLAIM_NAME_PATTERN, max_length=64)]
"""Of a group of keys, or as an issuer or a judge says it."""

Url = Annotated[str, StringConstraints(pattern=URL_PATTERN, max_length=512), AfterValidator(addressed)]
ClaimName = Annotated[str, StringConstraints(pattern=CLAIM_NAME_PATTERN, max_length=200)]


class SecretName(SpecModel):
    """A Secret of the same namespace."""

    name: ObjectName = Field(description="Name of the Secret.")


class Oidc(SpecModel):
    """An issuer whose tokens let callers in."""

    issuer: Url = Field(description="URL of the issuer, as in its tokens; its discovery document is read.")
    audience: str = Field(min_length=1, max_length=200, description="What `aud` of a token must name.")
    name_claim: ClaimName = Field(default="sub", description="Claim that names the caller, for limits and usage.")
    group_claim: ClaimName | None = Field(default=None, description="Claim that names the caller's group of limits.")
    role_claim: ClaimName | None = Field(default=None, description="Claim that names the caller's role.")


class External(SpecModel):
    """A service that judges callers."""

    url: Url = Field(description="Where method, path and credential are sent; docs/gateway.md says how it answers.")
    timeout: Duration = Field(default="2s", description="How long it may take: 10ms to 30s. Then the answer is 503.")
    cache: Duration = Field(default="10s", description="How long an answer counts: up to 1h; 0s asks each time.")

    @model_validator(mode="after")
    def _times_fit(self) -> "External":
        if not 0.01 <= to_seconds(self.timeout) <= 30:
            raise ValueError(f"timeout is {self.timeout}; allowed is 10ms to 30s")
        if to_seconds(self.cache) > 3600:
            raise ValueError(f"cache is {self.cache}; allowed is up to 1h")
        return self


class MonthlyBudget(SpecModel):
    """What may be used in a calendar month, in UTC."""

    model_config = ConfigDict(json_schema_extra=rules.BUDGET_RULES)

    tokens: Count | None = Field(default=None, description="Tokens of prompts and answers.")
    money: Money | None = Field(default=None, description="Money, in the unit of the prices, as text: '250.00'.")

    @model_validator(mode="after")
    def _is_one(self) -> "MonthlyBudget":
        if (self.tokens is None) == (self.money is None):
            raise ValueError("a budget has either tokens or money")
        return self


class RequestLimits(SpecModel):
    """How much. What is left out has no limit; 0 allows nothing."""

    requests_per_minute: Count | None = Field(default=None, description="Requests a minute.")
    prompt_tokens_per_minute: Count | None = Field(default=None, description="Tokens of prompts a minute.")
    answer_tokens_per_minute: Count | None = Field(default=None, description="Tokens of answers a minute.")
    thinking_tokens_per_minute: Count | None = Field(default=None, description="Tokens of thoughts a minute.")
    concurrency: Count | None = Field(default=None, description="Requests that run at once.")
    context_tokens: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = Field(
        default=None, description="Tokens of prompt and answer of one request."
    )
    monthly_budget: MonthlyBudget | None = Field(default=None, description="What may be used in a month.")
    cached_weight: float = Field(
        default=0.1, ge=0, le=1, description="How much of a prompt token counts that was in the cache."
    )
    shadow: bool = Field(default=False, description="Refuse nothing, and count what would have been refused.")


class NamedLimits(RequestLimits):
    """Limits of one caller."""

    name: CallerName = Field(
        description="Name of the key; with auth OIDC what nameClaim says, with External what the service says."
    )


class GroupLimits(RequestLimits):
    """Limits of one group of callers."""

    name: GroupName = Field(
        description="Name of the group; with auth OIDC what groupClaim says, with External what the service says."
    )


class Prices(SpecModel):
    """For a million tokens, as text: '0.60'."""

    prompt: Money = Field(default="0", description="Of prompts.")
    answer: Money = Field(default="0", description="Of answers.")
    cached: Money | None = Field(default=None, description="Of prompts that were in the cache. Default: as prompt.")
    thinking: Money | None = Field(default=None, description="Of thoughts. Default: as answer.")


class ModelPrices(Prices):
    """Prices of one model."""

    model: str = Field(min_length=1, max_length=128, description="The name that workers serve it as.")


_BY_NAME: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
_BY_MODEL: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["model"]}


class Quotas(SpecModel):
    """Limits of callers, and what tokens cost."""

    default: RequestLimits | None = Field(default=None, description="Of each key that has none of its own.")
    keys: list[NamedLimits] = Field(
        default=[],
        max_length=MAX_LIMITS,
        json_schema_extra=_BY_NAME,
        description="Of single keys. An entry stands alone: it takes nothing over from default.",
    )
    groups: list[GroupLimits] = Field(
        default=[],
        max_length=MAX_LIMITS,
        json_schema_extra=_BY_NAME,
        description="Of groups of keys, for all of their keys together, beside each key's own.",
    )
    prices: Prices | None = Field(default=None, description="Of every model that has none of its own.")
    prices_by_model: list[ModelPrices] = Field(
        default=[], max_length=64, json_schema_extra=_BY_MODEL, description="Of single models."
    )

    @model_validator(mode="after")
    def _each_is_said_once(self) -> "Quotas":
        for what, given in (
            ("keys", [each.name for each in self.keys]),
            ("groups", [each.name for each in self.groups]),
            ("pricesByModel", [each.model for each in self.prices_by_model]),
        ):
            if found := twice(given):
                raise ValueError(f"{what} has {found} twice; say each once")
        return self

    @property
    def has_budget(self) -> bool:
        """Whether something is limited by the month."""
        return any(each is not None and each.monthly_budget is not None for each in self._all)

    @property
    def has_any(self) -> bool:
        """Whether anything is limited."""
        return any(each is not None and each != RequestLimits() for each in self._all)

    @property
    def _all(self) -> tuple[RequestLimits | None, ...]:
        return (self.default, *self.keys, *self.groups)

    def for_gateway(self) -> dict[str, object]:
        """Return it as the gateway's file has it (glm_gateway.limits.config.QuotasConfig)."""
        told: dict[str, object] = {
            "keys": {each.name: _without(each, "name") for each in self.keys},
            "groups": {each.name: _without(each, "name") for each in self.groups},
            "pricesByModel": {each.model: _without(each, "model") for each in self.prices_by_model},
        }
        if self.default is not None:
            told["default"] = _without(self.default)
        if self.prices is not None:
            told["prices"] = _without(self.prices)
        return {key: value for key, value in told.items() if value}


class Access(SpecModel):
    """Who may ask, how much, and whom the workers believe."""

    model_config = ConfigDict(json_schema_extra=rules.ACCESS_RULES)

    trust_proxy_headers: bool = Field(
        default=False,
        description="Whether the headers x-glm-role and x-glm-tenant of a request count that does not come through the "
        "gateway. Only behind a proxy that sets them itself and drops those of clients; without one, anybody could "
        "claim to be anyone.",
    )
    auth: Auth | None = Field(
        default=None,
        description="How callers are known. APIKeys: by keys of a Secret, made with `glm keys create`. OIDC: by tokens "
        "of an issuer. External: a service judges. None: everybody who reaches the address is answered. Default: "
        "APIKeys; but a deployment from before there were gateways gets one only once this is said.",
    )
    keys_secret_ref: SecretName | None = Field(
        default=None, description="Secret with the keys. Default: glm-keys, for all deployments of the namespace."
    )
    oidc: Oidc | None = Field(default=None, description="The issuer. With auth OIDC, and only with it.")
    external: External | None = Field(default=None, description="The service. With auth External, and only with it.")
    limits: Quotas | None = Field(default=None, description="How much callers may use, and what it costs.")

    @model_validator(mode="after")
    def _auth_is_whole(self) -> "Access":
        if (self.auth == "OIDC") != (self.oidc is not None):
            raise ValueError("auth OIDC needs oidc, and only it has oidc")
        if (self.auth == "External") != (self.external is not None):
            raise ValueError("auth External needs external, and only it has external")
        if self.keys_secret_ref is not None and self.auth not in (None, "APIKeys"):
            raise ValueError(f"keysSecretRef is for auth APIKeys; auth is {self.auth}")
        return self


def _without(model: SpecModel, *names: str) -> dict[str, object]:
    found: dict[str, object] = model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {key: value for key, value in found.items() if key not in names}
