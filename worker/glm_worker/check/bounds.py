"""How far two right implementations of one layer may be apart, by the type that both compute in.

Both get the *same* input of a layer, so nothing adds up over the layers, and every layer is judged by itself. What a
layer returns is its input and an update, and each has rounding errors of its own size. So of one token

    allowed = of_residual * |output| + of_update * |update|,    | | the Euclidean norm, update = output - input

float32: sums in another order differ by some 1e-6 of their size (2**-24 for each rounding, and the roundings of a sum
of thousands add up at random). Measured on glm-nano and a random model of 172 M, kernels in C: 5e-7 to 1e-6 of the
update. The bounds, 1e-6 and 1e-4, leave a factor of a hundred; what they have to find (a factor, a bias, a norm, a
rotation) moves an update by 1e-2 and more.

bfloat16: a number has 8 bits, so each rounding is off by up to 2**-9 of it. The residual is rounded when attention is
added, when the MLP is added, and where one side keeps it in float32 once more: 2**-8 of its size covers these. Inside
of an update some ten tensors are rounded one after the other: 2**-9 each, added at random, and amplified where a
softmax or a gate is steep: measured 6e-3 to 1e-2, allowed 4e-2.

Every token is judged by itself, but for one case. A router that chooses among nearly equal experts may choose another
one on the other side. Then the update of this token differs by a share of an expert, which no rounding of ours explains
and which is no mistake. In float32 it happens once in thousands of tokens, in bfloat16 once in five or ten. So in a
layer with experts a token is left out where errors of its router's input, of OF_CHOICE of each number at random, move
the scores of a chosen and of another expert by what lies between them: some four times the usual error.

What is left out is judged with all others of the layer: by the token that SHARE of all are better than, nine of ten in
float32, half of them in bfloat16. A mistake in a formula moves nearly all tokens.

Logits, after all layers and with each side on its own way, have a bound of their own, relative to their spread over the
vocabulary: 1e-3 in float32. In bfloat16 errors of layers add up at random, so they grow with the square root of their
number: 4e-2 for one, 3e-1 at most (GLM-4.5 has 92). Logits of another checkpoint are off by 1 and more.

Greedy tokens must be equal where the likeliest token leads the second by four times the error that is allowed to a
logit: everywhere in float32, in nine of ten such places in bfloat16, for the sake of the routers.
"""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Bounds:
    """What one type allows. of_residual, of_update, of_choice, share: as above. logits, logits_most: after one layer,
    and at most.

    greedy_share: of the clear places where both sides must choose the same token.
    """

    of_residual: float
    of_update: float
    of_choice: float
    share: float
    logits: float
    logits_most: float
    greedy_share: float

    def of_logits(self, num_layers: int) -> float:
        """Return how far logits may be after so many layers, relative to their spread."""
        return min(self.logits * math.sqrt(num_layers), self.logits_most)


_BOUNDS = {
    torch.float32: Bounds(
        of_residual=1e-6, of_update=1e-4, of_choice=1e-5, share=0.9, logits=1e-3, logits_most=1e-3, greedy_share=1.0
    ),
    torch.bfloat16: Bounds(
        of_residual=2**-8, of_update=4e-2, of_choice=3e-2, share=0.5, logits=4e-2, logits_most=0.3, greedy_share=0.9
    ),
}


def bounds_of(weights: torch.dtype, kv_cache: torch.dtype) -> Bounds:
    """Return what two types allow together: what the coarser one does."""
    return _BOUNDS[min(weights, kv_cache, key=lambda dtype: dtype.itemsize)]
