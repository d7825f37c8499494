"""Write a glm4_moe checkpoint of fp32 as GGUF for llama.cpp, with the same weights. Runs where `gguf` is installed.

Matrices are written as they are or rounded to bfloat16; norms, biases and the router stay fp32, as in our engine.
"""

import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

FIRST_K, EXPERTS = "first_k_dense_replace", "n_routed_experts"
OF_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    **{f"self_attn.{x}_proj.{kind}": f"attn_{x}.{kind}" for x in "qkv" for kind in ("weight", "bias")},
    "self_attn.o_proj.weight": "attn_output.weight",
    **{f"mlp.{x}_proj.weight": f"ffn_{x}.weight" for x in ("gate", "up", "down")},
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    **{f"mlp.shared_experts.{x}_proj.weight": f"ffn_{x}_shexp.weight" for x in ("gate", "up", "down")},
}
KEPT_FP32 = ("norm.weight", ".bias", "ffn_gate_inp.weight")


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """Return the fp32 tensors of a safetensors file, not yet read."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    header.pop("__metadata__", None)
    if wrong := {entry["dtype"] for entry in header.values()} - {"F32"}:
        sys.exit(f"the checkpoint has tensors of {', '.join(sorted(wrong))}; only F32 is written here")
    return {
        name: data[entry["data_offsets"][0] : entry["data_offsets"][1]].view(np.float32).reshape(entry["shape"])
        for name, entry in header.items()
    }


def renamed(tensors: dict[str, np.ndarray], config: dict) -> dict[str, np.ndarray]:
    """Return them by llama.cpp's names, the experts of a layer in one."""
    result = {
        "token_embd.weight": tensors["model.embed_tokens.weight"],
        "output_norm.weight": tensors["model.norm.weight"],
        "output.weight": tensors["lm_head.weight"],
    }
    for layer in range(config["num_hidden_layers"]):
        before = f"model.layers.{layer}."
        result |= {
            f"blk.{layer}.{ours}": tensors[before + name] for name, ours in OF_LAYER.items() if before + name in tensors
        }
        if layer >= config[FIRST_K]:
            for x in ("gate", "up", "down"):
                names = [f"{before}mlp.experts.{expert}.{x}_proj.weight" for expert in range(config[EXPERTS])]
                result[f"blk.{layer}.ffn_{x}_exps.weight"] = np.stack([tensors[name] for name in names])
    return result


def add_parameters(writer: gguf.GGUFWriter, config: dict, dtype: str) -> None:
    rope = config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_expert_count(config[EXPERTS])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_leading_dense_block_count(config[FIRST_K])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    is_bf16 = dtype == "bfloat16"
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if is_bf16 else gguf.LlamaFileType.ALL_F32)


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    words = {number: text for text, number in tokenizer["model"]["vocab"].items()} | added
    tokens = [words.get(number, f"[unused {number}]") for number in range(config["vocab_size"])]
    kinds = [gguf.TokenType.CONTROL if number in added else gguf.TokenType.NORMAL for number in range(len(tokens))]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("glm4")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    ends = config["eos_token_id"]
    writer.add_eos_token_id(ends[0] if isinstance(ends, list) else ends)
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|assistant|>\n")


def main() -> None:
    folder, out, dtype = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    part = out.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "glm4moe")
    add_parameters(writer, config, dtype)
    add_tokenizer(writer, folder, config)
    for name, tensor in renamed(tensors_of(folder / "model.safetensors"), config).items():
        if dtype == "bfloat16" and not name.endswith(KEPT_FP32):
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(out)


if __name__ == "__main__":
    main()
