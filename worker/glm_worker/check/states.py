"""What one side made of the prompts.

Shape suffixes: T tokens of all prompts, D hidden size, S sampled, V vocabulary, K experts of a token.
"""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class States:
    """Rows stand prompt by prompt, in the order of their tokens: those of the prompt and all generated but the last.

    hidden_TD: what enters the first layer, and what each layer returns, as many as layers and one more. logits_SV: in
    fp32, of what follows each prompt and each generated token. routings: of each layer, None for a dense one; empty
    where nobody asked.
    """

    hidden_TD: list[Tensor]
    logits_SV: Tensor
    routings: list["Routing | None"] = field(default_factory=list)


@dataclass(frozen=True)
class Routing:
    """Which experts a layer's router chose, and how clearly.

    lead_T: by how much the least of a token's chosen experts leads the best of the others, in terms of what errors do
    to the scores of both: where it is 4 times the relative error of the router's input, the choice stays as it is.
    """

    expert_ids_TK: Tensor
    lead_T: Tensor


@dataclass(frozen=True)
class Text:
    """One prompt and what our side generated for it, greedily."""

    prompt: list[int]
    generated: list[int]

    @property
    def computed(self) -> list[int]:
        """The tokens that have hidden states: nothing is computed of the last one."""
        return self.prompt + self.generated[:-1]

    @property
    def num_sampled(self) -> int:
        return len(self.generated)
