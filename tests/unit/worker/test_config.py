"""ModelConfig: what is read, in both spellings, and what is refused."""

import json
from pathlib import Path

import pytest

from glm_worker.errors import ConfigError
from glm_worker.model.config import ModelConfig
from integration.tiny_models import NANO, a_config


def config_of(tmp_path: Path, **changes: object) -> ModelConfig:
    (tmp_path / "config.json").write_text(json.dumps(a_config(**changes)))
    return ModelConfig.read(tmp_path)


def without(*keys: str) -> dict[str, object]:
    return {key: value for key, value in a_config().items() if key not in keys}


def test_the_shipped_model_is_read() -> None:
    config = ModelConfig.read(NANO)
    assert (config.hidden_size, config.n_routed_experts, config.num_mtp_layers) == (128, 8, 1)
    assert config.eos_token_ids == (1003, 1010, 1012)


@pytest.mark.parametrize(("num_experts", "per_token", "num_shared"), [(6, 3, 1), (96, 8, 1), (1, 1, 1), (131, 7, 2)])
def test_pruned_variants_have_the_experts_that_their_file_says(
    tmp_path: Path, num_experts: int, per_token: int, num_shared: int
) -> None:
    changes = {"n_routed_experts": num_experts, "num_experts_per_tok": per_token, "n_shared_experts": num_shared}
    config = config_of(tmp_path, **changes)
    assert (config.n_routed_experts, config.num_experts_per_tok) == (num_experts, per_token)


def test_both_spellings_of_rope_mean_the_same() -> None:
    old = without("rope_parameters") | {"rope_theta": 1e6, "partial_rotary_factor": 0.25, "rope_scaling": None}
    new = without("rope_parameters") | {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    }
    assert ModelConfig.model_validate(old) == ModelConfig.model_validate(new)
    assert ModelConfig.model_validate(old).rotary_dim == 4


def test_both_spellings_of_the_number_of_mtp_layers_mean_the_same() -> None:
    for key in ("num_nextn_predict_layers", "num_mtp_layers"):
        assert ModelConfig.model_validate(without("num_nextn_predict_layers") | {key: 1}).num_mtp_layers == 1


def test_half_of_a_head_is_rotated_unless_said_otherwise() -> None:
    config = ModelConfig.model_validate(without("rope_parameters") | {"rope_theta": 1e6})
    assert config.rotary_dim == config.head_dim // 2


def test_head_dim_follows_from_the_heads_where_it_is_not_given() -> None:
    assert ModelConfig.model_validate(without("head_dim")).head_dim == 64 // 8


@pytest.mark.parametrize(("given", "read"), [(7, (7,)), ([7, 8], (7, 8)), (None, ())])
def test_eos_is_one_id_a_list_or_none(tmp_path: Path, given: object, read: tuple[int, ...]) -> None:
    assert config_of(tmp_path, eos_token_id=given).eos_token_ids == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe'; served is 'glm4_moe'"),
        ({"model_type": "glm4v_moe"}, "model_type is 'glm4v_moe', a vision model.*served is 'glm4_moe'"),
        ({"model_type": "glm4_moe_lite"}, "model_type is 'glm4_moe_lite', built with another attention.*'glm4_moe'"),
        ({"model_type": "glm_moe_dsa"}, "model_type is 'glm_moe_dsa', built with sparse attention.*'glm4_moe'"),
        ({"model_type": None}, "model_type is missing"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "quantization_config is set.*bf16"),
        ({"compression_config": {}}, "compression_config is set"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported.*'silu'"),
        ({"n_group": 8}, "n_group 8 is not supported"),
        ({"topk_group": 4}, "topk_group 4 is not supported"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings True is not supported"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling .*yarn.* is not supported"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type 'yarn' is not supported"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads 8"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than n_routed_experts 8"),
        ({"moe_intermediate_size": 23}, "moe_intermediate_size is 23: .*multiple of 8"),
        ({"vocab_size": 0}, "vocab_size is 0: .*greater than or equal to 1"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"head_dim": 2, "rope_parameters": {"rope_theta": 1e4}}, "partial_rotary_factor 0.5 of head_dim 2"),
    ],
)
def test_what_this_engine_does_not_compute_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path, **changes)


@pytest.mark.parametrize("key", ["hidden_size", "n_routed_experts", "routed_scaling_factor", "rms_norm_eps"])
def test_a_missing_number_is_named_rather_than_guessed(tmp_path: Path, key: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(without(key)))
    with pytest.raises(ConfigError, match=f"{key} is missing"):
        ModelConfig.read(tmp_path)


def test_rope_theta_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rope_theta is missing"):
        config_of(tmp_path, rope_parameters={"rope_type": "default"})


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ("[]", "is not a JSON object")])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        ModelConfig.read(tmp_path)


def test_a_missing_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such folder"):
        ModelConfig.read(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"config\.json is missing; "):
        ModelConfig.read(tmp_path)
