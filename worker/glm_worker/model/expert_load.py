"""How many tokens were routed to each expert: counted where the router's choices are, on the device.

A decode step must not wait for the host, so nothing is read here but in take(). The layers' choices are kept until the
end of the step and counted by one operation, because one in each layer would cost a launch a layer.

Shape suffixes: T tokens of the step, K experts per token, E experts of a layer.
"""

import torch
from torch import Tensor


class ExpertLoad:
    """Counts of one rank, summed over its layers. Every rank routes all tokens, so one rank knows the load of all."""

    def __init__(self, num_experts: int, device: torch.device) -> None:
        self._tokens_E = torch.zeros(num_experts, dtype=torch.int64, device=device)
        self._one = torch.ones((), dtype=torch.int64, device=device)
        self._chosen_TK: list[Tensor] = []  # a layer each, of the step that runs

    @property
    def counts(self) -> Tensor:
        """The counts themselves, (E,) int64, for kernels that add to them."""
        return self._tokens_E

    def note(self, expert_ids_TK: Tensor) -> None:
        """Keep the choices of one layer."""
        self._chosen_TK.append(expert_ids_TK)

    def count(self, num_tokens: int) -> None:
        """Add up what the layers of a step chose for its first num_tokens rows: more only fill it up.

        Queued on the device; nothing is waited for.
        """
        if not self._chosen_TK:
            return
        chosen = torch.cat([chosen_TK[:num_tokens] for chosen_TK in self._chosen_TK]).flatten()
        self._chosen_TK.clear()
        self._tokens_E.scatter_add_(0, chosen, self._one.expand_as(chosen))

    def take(self) -> list[int]:
        """Return the tokens of each expert since the last call. Waits for the device: call it between two steps."""
        tokens: list[int] = self._tokens_E.tolist()
        self._tokens_E.zero_()
        return tokens
