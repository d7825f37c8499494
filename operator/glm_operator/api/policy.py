"""What a deployment wants of requests: `spec.reasoning` and `spec.access`. They move no group. Pure."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from glm_operator.api import rules
from glm_operator.api.access import Access
from glm_operator.api.fields import SpecModel
from glm_operator.api.forms import ROLE_PATTERN

MAX_TOKENS = 10_000_000
"""Of a thought: as many as any prompt and answer together."""

MAX_ROLES = 32

Role = Annotated[str, StringConstraints(pattern=ROLE_PATTERN, max_length=64)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]

_DEFAULT_MODES = {"Auto": "auto", "Enabled": "enabled", "Disabled": "disabled", None: "template"}
_VISIBILITIES = {"Visible": "visible", "Hidden": "hidden", "ByRole": "by_role"}
_FIELDS = {"ReasoningContent": "reasoning_content", "Both": "both"}


class EffortTokens(SpecModel):
    """Most tokens of a thought by the effort that a request names. One that is left out has no limit of its own."""

    minimal: Tokens | None = Field(default=None, description="With effort minimal.")
    low: Tokens | None = Field(default=None, description="With effort low.")
    medium: Tokens | None = Field(default=None, description="With effort medium.")
    high: Tokens | None = Field(default=None, description="With effort high.")
    xhigh: Tokens | None = Field(default=None, description="With effort xhigh.")


class Reasoning(SpecModel):
    """Whether and how long the model thinks, and who is shown it. An edit reaches running workers within seconds."""

    model_config = ConfigDict(json_schema_extra=rules.REASONING_RULES)

    default: Literal["Auto", "Enabled", "Disabled"] | None = Field(
        default=None,
        description="Whether the model thinks where a request does not say. Auto: by a score of the conversation. "
        "Default: as the chat template has it.",
    )
    auto_threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Mode Auto, also of a request, thinks from this score on: at 0 always, and less often the higher "
        "it is. A request may bring its own. docs/thinking.md says what the score is made of.",
    )
    max_thinking_tokens: Tokens | None = Field(
        default=None,
        description="Most tokens of a thought, whatever a request asks for: then it is closed and the answer follows. "
        "Default: as many as the answer may have.",
    )
    effort_tokens: EffortTokens | None = Field(
        default=None, description="Most tokens of a thought by the effort that a request names."
    )
    visibility: Literal["Visible", "Hidden", "ByRole"] = Field(
        default="Visible",
        description="Who is shown reasoning. A request can hide it, and never show more. Hidden reasoning is generated "
        "and counted all the same. ByRole: shown to the roles in visibleTo.",
    )
    visible_to: list[Role] = Field(
        default=[],
        max_length=MAX_ROLES,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="Roles that are shown reasoning, as the gateway names them in x-glm-role. With ByRole only.",
    )
    fields: Literal["ReasoningContent", "Both"] = Field(
        default="ReasoningContent",
        description="Fields of OpenAI's chat API that carry reasoning. ReasoningContent: reasoning_content. Both: "
        "reasoning with the same text as well.",
    )

    @model_validator(mode="after")
    def _roles_fit(self) -> "Reasoning":
        if self.visibility == "ByRole" and not self.visible_to:
            raise ValueError("visibility ByRole needs visibleTo, the roles that are shown reasoning")
        if self.visibility != "ByRole" and self.visible_to:
            raise ValueError(f"visibleTo is for visibility ByRole; visibility is {self.visibility}")
        if twice := {role for role in self.visible_to if self.visible_to.count(role) > 1}:
            raise ValueError(f"visibleTo has {', '.join(sorted(twice))} twice")
        return self


class Policy(SpecModel):
    """Both together. Parts that are left out are as by default."""

    reasoning: Reasoning | None = None
    access: Access | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "Policy":
        check_policy(self.reasoning, self.access)
        return self

    @property
    def is_default(self) -> bool:
        """Whether it asks for nothing that a worker would not do by itself."""
        return self.for_workers() == Policy().for_workers()

    def for_workers(self) -> dict[str, object]:
        """Return what is put to the workers' management port: see docs/design/0008-api.md."""
        reasoning, access = self.reasoning or Reasoning(), self.access or Access()
        efforts = reasoning.effort_tokens or EffortTokens()
        return {
            "reasoning": {
                "default": _DEFAULT_MODES[reasoning.default],
                "auto_threshold": reasoning.auto_threshold,
                "max_thinking_tokens": reasoning.max_thinking_tokens,
                "effort_tokens": efforts.model_dump(exclude_none=True),
                "visibility": _VISIBILITIES[reasoning.visibility],
                "visible_to": list(reasoning.visible_to),
                "fields": _FIELDS[reasoning.fields],
            },
            "trust_proxy_headers": access.trust_proxy_headers,
        }


def check_policy(reasoning: Reasoning | None, access: Access | None) -> None:
    """Raise ValueError with a sentence where the two do not fit each other."""
    has_roles = access is not None and (access.trust_proxy_headers or access.auth not in (None, "None"))
    if reasoning is not None and reasoning.visibility == "ByRole" and not has_roles:
        raise ValueError(
            "reasoning.visibility ByRole needs access.auth, which tells the roles of callers; or "
            "access.trustProxyHeaders: true, with a proxy of yours that sends the header x-glm-role"
        )
