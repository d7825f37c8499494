"""Check that model.py and transformers' Glm4MoeForCausalLM give the same fp32 logits (half a minute)."""

import argparse
from pathlib import Path

import torch
from model import Config, GlmNano, RowsAttention, from_checkpoint
from prompt import FOLDER
from safetensors.torch import load_file
from transformers import Glm4MoeForCausalLM

TOLERANCE = 1e-4  # fp32 sums in another order: about 1e-5 on logits of size 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    config = Config.read(folder / "config.json")
    ours = GlmNano(config).eval()
    ours.load_state_dict(from_checkpoint(load_file(folder / "model.safetensors"), config))
    theirs = Glm4MoeForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs.train(False)
    worst = 0.0
    with torch.no_grad():
        for seed in range(8):
            ids_T = torch.randint(config.vocab_size, (40 * seed + 3,), generator=torch.Generator().manual_seed(seed))
            logits_TV = ours.lm_head(ours.hidden(ids_T, torch.arange(len(ids_T)), RowsAttention([len(ids_T)])))
            worst = max(worst, (logits_TV - theirs(ids_T[None]).logits[0]).abs().max().item())
    print(f"largest difference of a logit: {worst:.2e} (allowed {TOLERANCE:.0e})")
    if worst > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
