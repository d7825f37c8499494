"""`glm-worker check` on real checkpoints: what is right passes, and each way in which a model is often wrong is found.

A broken variant is read by our side alone; transformers reads the model that it was made of. So what is found is what
a mistake in our layers would do.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks import models
from safetensors.torch import load_file, save_file
from torch import Tensor

from glm_worker import main
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import NANO, a_config, write_checkpoint
from long_form import short_of

hold_torch_to_one_thread()

ROOT = Path(__file__).parents[2]
LAYER = "model.layers.2"
Change = Callable[[dict[str, Tensor]], None]


def a_variant(folder: Path, config: dict[str, object] | None = None, change: Change | None = None) -> Path:
    """Return a copy of glm-nano with another configuration, or with other weights."""
    shutil.copytree(NANO, folder, ignore=shutil.ignore_patterns("*.py", "*.md", "manifest.json"))
    if config is not None:
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | config))
    if change is not None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def checked(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a check, and what it says."""
    code = main.run(["check", "--json", *flags])
    told = capsys.readouterr()
    return code, json.loads(told.out) if told.out else {"error": told.err}


def swapped(one: str, other: str) -> Change:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[one], tensors[other] = tensors[other], tensors[one]

    return change


def zeroed(name: str) -> Change:
    def change(tensors: dict[str, Tensor]) -> None:
        assert tensors[name].abs().max() > 0, "or nothing would be missing"
        tensors[name] = tensors[name] * 0

    return change


def gates_swapped_in_all_experts(tensors: dict[str, Tensor]) -> None:
    for expert in range(8):
        name = f"{LAYER}.mlp.experts.{expert}"
        swapped(f"{name}.gate_proj.weight", f"{name}.up_proj.weight")(tensors)


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
BROKEN: dict[str, tuple[dict[str, object] | None, Change | None, str]] = {
    "all dims of a head are rotated": (
        {"partial_rotary_factor": 1.0, "rope_parameters": ROPE}, None, "layer 0 (dense)",
    ),
    "another base of the rotation": (
        {"rope_theta": 1e6, "rope_parameters": ROPE | {"partial_rotary_factor": 0.5, "rope_theta": 1e6}},
        None,
        "layer 0 (dense)",
    ),
    "gate and up swapped in the experts": (None, gates_swapped_in_all_experts, "layer 2 (experts)"),
    "gate and up swapped in the dense layer": (
        None,
        swapped("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        "layer 0 (dense)",
    ),
    "a bias of the values missing": (None, zeroed(f"{LAYER}.self_attn.v_proj.bias"), "layer 2 (experts)"),
    "a correction bias missing": (None, zeroed(f"{LAYER}.mlp.gate.e_score_correction_bias"), "layer 2 (experts)"),
    "routed experts scaled": ({"routed_scaling_factor": 2.5}, None, "layer 1 (experts)"),
    "weights of experts not normalised": ({"norm_topk_prob": False}, None, "layer 1 (experts)"),
    "the two norms of a layer swapped": (
        None,
        swapped(f"{LAYER}.input_layernorm.weight", f"{LAYER}.post_attention_layernorm.weight"),
        "layer 2 (experts)",
    ),
    "norms of queries and keys swapped": (
        None,
        swapped("model.layers.1.self_attn.q_norm.weight", "model.layers.1.self_attn.k_norm.weight"),
        "layer 1 (experts)",
    ),
    "the norm before the head is another": (
        None, swapped("model.norm.weight", f"{LAYER}.input_layernorm.weight"), "layer 2 (experts)",
    ),
}  # fmt: skip
SHORT = ("all dims of a head are rotated", "gate and up swapped in the experts", "a correction bias missing",
         "the two norms of a layer swapped", "weights of experts not normalised")  # fmt: skip
SMALL = ("a bias of the values missing", "a correction bias missing", "norms of queries and keys swapped",
         "weights of experts not normalised")  # fmt: skip
"""What moves an update of this small model no further than a few roundings of bfloat16 do."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shipped_model_is_what_transformers_computes(capsys: pytest.CaptureFixture[str], dtype: str) -> None:
    code, said = checked(capsys, "--model", "builtin://glm-nano", "--dtype", dtype)
    assert code == 0, said
    assert said["same"]
    assert said["num_layers"] == said["num_layers_of_checkpoint"] == 4
    assert len(said["places"]) == 6
    assert said["greedy"]["num_clear"] > 20, "or the choices say nothing"


@pytest.mark.parametrize("what", short_of(BROKEN, is_short=lambda what: what in SHORT))
def test_a_model_that_is_computed_otherwise_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    config, change, first = BROKEN[what]
    broken = a_variant(tmp_path / "broken", config, change)
    code, said = checked(capsys, "--model", str(broken), "--reference", str(NANO), "--dtype", "float32")
    assert code == 1, said
    assert said["first_that_differs"] == first
    assert first in said["verdict"]


@pytest.mark.long
@pytest.mark.parametrize("what", [name for name in BROKEN if name not in SMALL])
def test_large_mistakes_are_found_in_bfloat16_as_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str
) -> None:
    config, change, first = BROKEN[what]
    broken = a_variant(tmp_path / "broken", config, change)
    code, said = checked(capsys, "--model", str(broken), "--reference", str(NANO), "--dtype", "bfloat16")
    assert (code, said["first_that_differs"]) == (1, first)


def _an_expert_zeroed(tensors: dict[str, Tensor]) -> None:
    zeroed(f"{LAYER}.mlp.experts.3.down_proj.weight")(tensors)


def _gates_swapped_in_an_expert(tensors: dict[str, Tensor]) -> None:
    name = f"{LAYER}.mlp.experts.3"
    swapped(f"{name}.gate_proj.weight", f"{name}.up_proj.weight")(tensors)


def _two_experts_swapped(tensors: dict[str, Tensor]) -> None:
    for matrix in ("gate_proj", "up_proj", "down_proj"):
        swapped(f"{LAYER}.mlp.experts.3.{matrix}.weight", f"{LAYER}.mlp.experts.5.{matrix}.weight")(tensors)


OF_AN_EXPERT = [_an_expert_zeroed, _gates_swapped_in_an_expert, _two_experts_swapped]


@pytest.mark.parametrize("dtype", short_of(["float32", "bfloat16"], 1))
@pytest.mark.parametrize("change", OF_AN_EXPERT)
def test_one_wrong_expert_of_eight_is_found_and_its_layer_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: Change, dtype: str
) -> None:
    broken = a_variant(tmp_path / "broken", change=change)
    code, said = checked(capsys, "--model", str(broken), "--reference", str(NANO), "--dtype", dtype)
    assert (code, said["first_that_differs"]) == (1, "layer 2 (experts)")
    assert [place["name"] for place in said["places"] if place["differs"]] == ["layer 2 (experts)"]


@pytest.mark.parametrize("dtype", short_of(["bfloat16", "float32"], 1))
@pytest.mark.parametrize("change", short_of(OF_AN_EXPERT, 1))
def test_one_wrong_expert_of_128_is_found_and_its_layer_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: Change, dtype: str
) -> None:
    right, broken = _many_experts(tmp_path / "right"), tmp_path / "broken"
    assert checked(capsys, "--model", str(right), "--dtype", dtype)[0] == 0
    shutil.copytree(right, broken)
    tensors = load_file(broken / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, broken / "model.safetensors")
    code, said = checked(capsys, "--model", str(broken), "--reference", str(right), "--dtype", dtype)
    assert (code, said["first_that_differs"]) == (1, "layer 2 (experts)")


@pytest.mark.parametrize("num_layers", [1, 3])
def test_first_layers_alone_are_compared(capsys: pytest.CaptureFixture[str], num_layers: int) -> None:
    code, said = checked(capsys, "--model", "builtin://glm-nano", "--layers", str(num_layers), "--dtype", "float32")
    assert (code, said["num_layers"], said["num_layers_of_checkpoint"]) == (0, num_layers, 4)


def test_a_mistake_behind_the_layers_that_are_compared_is_not_seen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = a_variant(tmp_path / "broken", change=gates_swapped_in_all_experts)
    flags = ("--model", str(broken), "--reference", str(NANO), "--dtype", "float32")
    assert checked(capsys, *flags, "--layers", "2")[0] == 0
    assert checked(capsys, *flags, "--layers", "3")[0] == 1


def test_layers_that_are_not_compared_are_not_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = _with_a_hole(tmp_path / "large")
    code, said = checked(capsys, "--model", str(folder), "--layers", "2", "--dtype", "float32")
    assert code == 0, said
    assert said["num_layers_of_checkpoint"] == 3


@pytest.mark.long
@pytest.mark.parametrize("kind", models.KINDS)
def test_the_models_of_the_benchmarks_are_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    models.make(models.KINDS[kind], tmp_path / kind)
    for dtype in ("float32", "bfloat16"):
        code, said = checked(capsys, "--model", str(tmp_path / kind), "--dtype", dtype)
        assert code == 0, said


def test_prompts_of_a_file_are_computed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text("Hello\nHow much is 3 + 4?\n")
    code, said = checked(capsys, "--model", "builtin://glm-nano", "--prompt-file", str(path), "--dtype", "float32")
    assert (code, said["num_prompts"]) == (0, 2)


def _missing(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{LAYER}.self_attn.q_proj.bias"]


def _surplus(tensors: dict[str, Tensor]) -> None:
    tensors[f"{LAYER}.self_attn.o_proj.bias"] = tensors["model.norm.weight"].clone()


@pytest.mark.parametrize(
    ("config", "change", "cause"),
    [
        (None, _missing, "model.layers.2.self_attn.q_proj.bias is missing; config.json asks for it"),
        (None, _surplus, "model.layers.2.self_attn.o_proj.bias is unknown to config.json"),
        ({"intermediate_size": 512}, None, "has the shape [384, 128]; config.json asks for [512, 128]"),
        ({"model_type": "glm4_moe_lite"}, None, "model_type is 'glm4_moe_lite', built with another attention"),
        ({"quantization_config": {"bits": 4}}, None, "quantization_config is set"),
        ({"rope_scaling": {"type": "yarn"}}, None, "rope_scaling"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_says_why(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    config: dict[str, object] | None,
    change: Change | None,
    cause: str,
) -> None:
    folder = a_variant(tmp_path / "unreadable", config, change)
    code, said = checked(capsys, "--model", str(folder), "--layers", "3")
    assert code == 2
    assert cause in said["error"]


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (["--model", "no/such/folder"], "no/such/folder is not a folder"),
        (["--model", "builtin://glm-nano", "--layers", "5"], "--layers 5 is more than the checkpoint has; it has 4"),
        (["--model", "builtin://glm-nano", "--dtype", "int4"], "GLM_DTYPE=int4"),
        (["--model", "builtin://glm-nano", "--prompt-file", "none"], "the prompts in none cannot be read"),
        (["--model", "builtin://glm-nano", "--device", "cuda"], "cuda"),
        ([], "GLM_MODEL is not set"),
    ],
)
def test_what_cannot_be_done_exits_with_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str], cause: str
) -> None:
    monkeypatch.delenv("GLM_MODEL", raising=False)
    code, said = checked(capsys, *flags)
    assert code == 2
    assert cause in said["error"]


def test_a_user_sees_a_table_and_a_verdict(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "glm_worker.main", "check", "--model", "builtin://glm-nano", "--dtype", "float32"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "worker")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    head, _, columns, embedding, *layers, norm, logits, _, choices, verdict = ran.stdout.splitlines()
    assert "4 of 4 layers in float32 on cpu" in head
    assert columns.split()[:3] == ["place", "max", "abs"]
    assert len(layers) == 4
    assert all(line.endswith("ok") for line in (embedding, *layers, norm, logits))
    assert choices.startswith("next tokens equal: ")
    assert verdict == "SAME: all layers compute what transformers computes, within what float32 allows"


def _with_texts(folder: Path, **changes: object) -> Path:
    """Write a random model that reads and writes as glm-nano does."""
    config = a_config(vocab_size=1024, eos_token_id=[1003, 1010, 1012], **changes)
    write_checkpoint(folder, config, num_shards=1)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (NANO / name).exists():
            shutil.copy(NANO / name, folder)
    return folder


def _many_experts(folder: Path) -> Path:
    return _with_texts(folder, n_routed_experts=128, num_experts_per_tok=8)


def _with_a_hole(folder: Path) -> Path:
    """Write a model whose last layer is a file of 8 GiB a tensor, a hole: who reads it does not come back."""
    rows, columns = 2**16, 2**15
    _with_texts(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.layers.2.")}
    left = {name: tensor for name, tensor in tensors.items() if name not in kept}
    save_file(kept, folder / "first.safetensors", metadata={"format": "pt"})
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in left:
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [offset, offset + 4 * rows * columns]}
        offset += 4 * rows * columns
    head = json.dumps(header).encode()
    with (folder / "last.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + offset)
    files = dict.fromkeys(kept, "first.safetensors") | dict.fromkeys(left, "last.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder
