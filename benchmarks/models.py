"""Checkpoints with random weights, for what glm-nano is too small for; both are served like any other folder.

bench-172m: the 172 M fp32 glm4_moe on which decoding speed is measured (8 layers, hidden 768, 16 experts, 4 a token).
Weights have the scale 1 / sqrt(inputs), so that every part of the network matters to the logits, as in a trained one.

long-context: a tiny glm4_moe with 131,072 positions, for the requests of coding agents and prompts of 100,000
characters. Its words are random, but its answers have a form: 6 words of thought, 20 of text, then the stop token,
whatever the prompt and the sampling. So a client that asks for no limit gets an end.

Template and tokenizer are glm-nano's; the vocabulary is larger (8,192 and 32,000): further merges, trained on the
library of the Python that runs this. A folder that is whole (its manifest matches) is left alone. Ends with a JSON
line for each model.
"""

import argparse
import json
import re
import sysconfig
import time
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from pydoc_data.topics import topics
from random import Random

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor

from glm_worker.model.config import ModelConfig
from glm_worker.model.tensor_map import tensor_reads
from glm_worker.models import resolve
from glm_worker.parallel.mesh import Mesh

FORMAT = 1  # of what is written here; another one makes every folder anew
NUM_THOUGHTS, NUM_WORDS = 6, 20
LEVEL_STRENGTH, SUCCESSOR_STRENGTH = 4.0, 8.0
COPIED = ("chat_template.jinja", "generation_config.json")
CACHE = Path("~/.cache/glm-operator/models").expanduser()


@dataclass(frozen=True)
class Kind:
    """What is made. The fields of config.json beyond those that all kinds share."""

    name: str
    config: dict[str, object]
    has_form: bool  # whether answers end by themselves, as described above
    seed: int = 0
    shared: dict[str, object] = field(
        default_factory=lambda: {
            "architectures": ["Glm4MoeForCausalLM"],
            "model_type": "glm4_moe",
            "dtype": "float32",
            "first_k_dense_replace": 1,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.0,
            "n_group": 1,
            "topk_group": 1,
            "attention_bias": True,
            "use_qk_norm": False,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
            "tie_word_embeddings": False,
            "num_nextn_predict_layers": 0,
        }
    )

    @property
    def raw(self) -> dict[str, object]:
        """Return config.json. The stop tokens are glm-nano's, whose ids every kind keeps."""
        nano = json.loads((_nano() / "config.json").read_text(encoding="utf-8"))
        ids = {name: nano[name] for name in ("eos_token_id", "pad_token_id")}
        return {**self.shared, **self.config, **ids}

    @property
    def recipe(self) -> str:
        """Return a hash of everything that decides the files."""
        sources = [sha256((_nano() / name).read_bytes()).hexdigest() for name in ("tokenizer.json", *COPIED)]
        texts = sha256("".join(python_texts()).encode()).hexdigest()
        made_of = [FORMAT, self.name, self.seed, self.has_form, self.raw, sources, texts]
        return sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "bench-172m",
            {
                "vocab_size": 32_000,
                "hidden_size": 768,
                "num_hidden_layers": 8,
                "intermediate_size": 2048,
                "moe_intermediate_size": 384,
                "n_routed_experts": 16,
                "num_experts_per_tok": 4,
                "num_attention_heads": 12,
                "num_key_value_heads": 4,
                "head_dim": 64,
                "max_position_embeddings": 8192,
            },
            has_form=False,
        ),
        Kind(
            "long-context",
            {
                "vocab_size": 8192,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "intermediate_size": 128,
                "moe_intermediate_size": 32,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 16,
                "max_position_embeddings": 131_072,
            },
            has_form=True,
        ),
    )
}


def make(kind: Kind, folder: Path) -> bool:
    """Write the checkpoint into folder, the manifest last. Return False if it is there already."""
    if is_whole(kind, folder):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    for name in COPIED:
        (folder / name).write_bytes((_nano() / name).read_bytes())
    raw = kind.raw
    config = ModelConfig.model_validate(raw)
    _write_json(folder / "config.json", raw)
    tokenizer = json.loads((_nano() / "tokenizer.json").read_text(encoding="utf-8"))
    _write_json(folder / "tokenizer.json", enlarged(tokenizer, config.vocab_size))
    settings = json.loads((_nano() / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write_json(folder / "tokenizer_config.json", {**settings, "model_max_length": config.max_position_embeddings})
    tensors = random_tensors(config, kind.seed)
    if kind.has_form:
        give_form(tensors, levels_of(tokenizer, kind.seed), kind.seed)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    files = {path.name: _fingerprint(path) for path in sorted(folder.iterdir()) if path.is_file()}
    _write_json(folder / "manifest.json", {"recipe": kind.recipe, "files": files})
    return True


def is_whole(kind: Kind, folder: Path) -> bool:
    """Tell whether the folder holds what this recipe wrote, byte for byte."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = {name: _fingerprint(folder / name) for name in manifest["files"]}
    except (FileNotFoundError, ValueError, KeyError):
        return False
    return bool(manifest.get("recipe") == kind.recipe and manifest["files"] == files)


def random_tensors(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Return every tensor by its name in the checkpoint. Norms are near 1, biases (also the router's) not zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for read in sorted(tensor_reads(config, Mesh()), key=lambda read: read.name):
        noise = torch.randn(read.shape, generator=generator)
        if "norm" in read.name:
            tensors[read.name] = 1 + 0.1 * noise
        elif read.name.endswith("bias"):
            tensors[read.name] = 0.1 * noise
        else:
            tensors[read.name] = noise * read.shape[-1] ** -0.5
    return tensors


@dataclass(frozen=True)
class Levels:
    """Which tokens may come where in an answer: those of one level are followed by one of the next."""

    token_ids: tuple[tuple[int, ...], ...]
    stray: int  # the level of every other token: sampled by chance, or continued from


def levels_of(tokenizer: dict[str, object], seed: int) -> Levels:
    """Deal glm-nano's words out to the places of an answer.

    An answer follows <|assistant|>, or </think> where thinking is off.
    """
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    assert isinstance(model, dict)
    assert isinstance(added, list)
    ids = {token["content"]: token["id"] for token in added}
    words = sorted(number for text, number in model["vocab"].items() if re.fullmatch("Ġ[a-z]{2,}", text))
    Random(seed).shuffle(words)
    places = NUM_THOUGHTS + NUM_WORDS
    dealt = [tuple(words[place::places]) for place in range(places)]
    marks = [(ids[text],) for text in ("<|assistant|>", "<think>", "</think>", "<|user|>")]
    levels = (*marks[:2], *dealt[:NUM_THOUGHTS], marks[2], *dealt[NUM_THOUGHTS:], marks[3])
    return Levels(levels, stray=len(levels) - NUM_WORDS // 2)


def give_form(tensors: dict[str, Tensor], levels: Levels, seed: int) -> None:
    """Give each level a direction of the residual stream that only its tokens' embeddings write.

    The layers write beside these directions; the output matrix reads the one of the level before. So which level
    comes next is certain, and which of its words depends on the random rest of the network.
    """
    embedding_VD, output_VD = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
    hidden_size = embedding_VD.shape[1]
    noise = torch.randn(hidden_size, len(levels.token_ids), generator=torch.Generator().manual_seed(seed))
    directions_LD = torch.linalg.qr(noise).Q.T.contiguous()
    beside_DD = torch.eye(hidden_size) - directions_LD.T @ directions_LD
    tensors["model.norm.weight"].fill_(1.0)
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.copy_(beside_DD @ tensor)
    level_of_V = torch.full((len(embedding_VD),), levels.stray)
    for level, token_ids in enumerate(levels.token_ids):
        level_of_V[list(token_ids)] = level
    embedding_VD.copy_(embedding_VD * hidden_size**0.5 @ beside_DD + LEVEL_STRENGTH * directions_LD[level_of_V])
    output_VD.copy_(output_VD @ beside_DD)
    for before, token_ids in enumerate(levels.token_ids[1:]):
        output_VD[list(token_ids)] += SUCCESSOR_STRENGTH * directions_LD[before]


def enlarged(tokenizer: dict[str, object], vocab_size: int) -> dict[str, object]:
    """Return the tokenizer with further merges, as English and code want them: more tokens, every old id as it was.

    It stays a byte-level BPE that gives every text back. The added tokens take their ids from the vocabulary, since
    what follows them has higher ones.
    """
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    assert isinstance(model, dict)
    assert isinstance(added, list)
    vocabulary = model["vocab"] | {token["content"]: token["id"] for token in added}
    if len(vocabulary) == vocab_size:
        return tokenizer
    merges = list(model["merges"])
    for first, second in _trained_merges(tokenizer, vocab_size + len(vocabulary)):
        if len(vocabulary) == vocab_size:
            break
        if first + second not in vocabulary:
            vocabulary[first + second] = len(vocabulary)
            merges.append([first, second])
    if len(vocabulary) != vocab_size:
        raise ValueError(f"Python's library has words for {len(vocabulary)} tokens, not for {vocab_size}")
    return tokenizer | {"model": model | {"vocab": vocabulary, "merges": merges}}


def _trained_merges(tokenizer: dict[str, object], vocab_size: int) -> list[list[str]]:
    """Return the merges of a BPE trained on Python's own documentation and library, with the same pre-tokenizer."""
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = Tokenizer.from_str(json.dumps(tokenizer)).pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(python_texts(), trainer)
    return list(json.loads(trained.to_str())["model"]["merges"])


@cache
def python_texts() -> list[str]:
    """Return 5 million characters of English and code that lie on every machine with this Python."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(library.glob("*.py"))]
    return [*topics.values(), *sources]


def _nano() -> Path:
    return resolve("builtin://glm-nano")


def _fingerprint(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return {"sha256": digest.hexdigest(), "size": path.stat().st_size}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append", help="may be repeated; without: all")
    parser.add_argument("--out", type=Path, default=CACHE, help="a folder of each kind's name is made in it")
    arguments = parser.parse_args()
    for name in arguments.kind or KINDS:
        folder, started = arguments.out / name, time.monotonic()
        was_made = make(KINDS[name], folder)
        size = (folder / "model.safetensors").stat().st_size
        line = {"model": name, "folder": str(folder), "parameters": size // 4, "made": was_made}
        print(json.dumps({**line, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
