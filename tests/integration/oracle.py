"""transformers' Glm4MoeForCausalLM, imported once a test session: it takes many seconds."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def oracle_logits(
    folder: Path, prompts: Sequence[Tensor], dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> list[Tensor]:
    """Return the oracle's logits (tokens, V) of each prompt alone, in fp32. It reads the folder as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other projects
        import transformers

        transformers.utils.logging.set_verbosity_error()  # it reports the MTP tensors that it skips
        transformers.utils.logging.disable_progress_bar()
        model = transformers.Glm4MoeForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
    with torch.inference_mode():
        return [model(prompt[None].to(device)).logits[0].float().cpu() for prompt in prompts]
