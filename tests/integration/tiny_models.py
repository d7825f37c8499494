"""Random glm4_moe checkpoints in Hugging Face layout, tiny unless asked otherwise, written without transformers.

Weights have the scale 1 / sqrt(inputs), so that every part of the network matters to the logits and these are of
order 1, as in a trained model.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from glm_worker.model.config import ModelConfig
from glm_worker.model.tensor_map import tensor_names, tensor_reads
from glm_worker.parallel.mesh import Mesh

# Copy it before reading it twice: who trains it replaces the file
NANO = Path(__file__).parents[2] / "worker" / "models" / "glm-nano"


def a_config(**changes: object) -> dict[str, object]:
    """Return a config.json: 3 layers, 8 experts, heads that 4 ranks divide, a vocabulary that they do not."""
    return {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "dtype": "float32",
        "vocab_size": 131,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "intermediate_size": 80,
        "moe_intermediate_size": 24,
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "attention_bias": False,
        "use_qk_norm": False,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "tie_word_embeddings": False,
        "num_nextn_predict_layers": 0,
        "eos_token_id": [1, 2],
        "pad_token_id": 0,
    } | changes


def copy_of_nano(folder: Path) -> Path:
    """Copy what a worker reads of the shipped model into folder."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(NANO / name, folder)
    return folder


def random_tensors(
    config: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    """Return every tensor by its name in the checkpoint. Norms are near 1, biases (also the router's) not zero."""
    generator = torch.Generator(device).manual_seed(seed)
    tensors = {}
    for read in sorted(tensor_reads(config, Mesh()), key=lambda read: read.name):
        noise = torch.randn(read.shape, generator=generator, device=device)
        if read.name.endswith("e_score_correction_bias"):
            tensors[read.name] = 0.1 * noise  # float32 in every checkpoint; wide enough to change many choices
        elif "norm" in read.name:
            tensors[read.name] = (1 + 0.1 * noise).to(dtype)
        elif read.name.endswith("bias"):
            tensors[read.name] = (0.1 * noise).to(dtype)
        else:
            tensors[read.name] = (noise * read.shape[-1] ** -0.5).to(dtype)
    assert tensors.keys() == tensor_names(config)
    return tensors


def write_checkpoint(
    folder: Path,
    config: dict[str, object],
    num_shards: int = 1,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Path:
    """Write config.json and random weights, made on device, into folder, in one file or in shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = random_tensors(ModelConfig.read(folder), seed, dtype, device)
    write_weights(folder, {name: tensor.cpu() for name, tensor in tensors.items()}, num_shards)
    return folder


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], num_shards: int = 1) -> None:
    """Write the tensors as transformers does."""
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    files = {name: f"model-{i % num_shards + 1:05}-of-{num_shards:05}.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        shard = {name: tensor for name, tensor in tensors.items() if files[name] == file}
        save_file(shard, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
