"""The configuration of a glm4_moe checkpoint, read from its config.json. Needs no torch.

Both spellings are read: transformers 5 keeps rope_theta and partial_rotary_factor in rope_parameters, older files at
the top. Whatever would change the numerics and is not built here (quantised weights, rope scaling, router groups,
another activation) is a ConfigError, never ignored. Keys about training or text generation are left to others.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from glm_worker.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
# grouped_mm wants rows that start on 16 bytes: 8 values of bf16
AlignedCount = Annotated[int, Field(ge=8, multiple_of=8)]


SERVED = "glm4_moe"
_OTHERS = {
    "glm4v_moe": "a vision model, and this server reads no images",
    "glm4v": "a vision model, and this server reads no images",
    "glm4_moe_lite": "built with another attention (GLM-4.7-Flash)",
    "glm_moe_dsa": "built with sparse attention (GLM-5)",
    "glm4": "a dense model",
    "glm": "a dense model",
    "chatglm": "an older model, with code of its own",
}


def _not_served(model_type: object) -> str:
    """Say which model this is, where it is one of the family, and which are served."""
    if not isinstance(model_type, str):
        return "model_type is missing"
    what = f", {_OTHERS[model_type]}" if model_type in _OTHERS else ""
    return (
        f"model_type is {model_type[:64]!r}{what}; served is {SERVED!r}: GLM-4.5, GLM-4.5-Air, GLM-4.6, GLM-4.7 and"
        " models made of them, whatever their number of experts"
    )


def _ids(value: object) -> object:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else value


class ModelConfig(BaseModel):
    """Shapes and numerics of one model. Names are those of config.json."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    model_type: Literal["glm4_moe"]
    vocab_size: Count
    hidden_size: AlignedCount
    num_hidden_layers: Count
    first_k_dense_replace: int = Field(
        ge=0, description="This many leading layers have a dense MLP instead of experts."
    )
    intermediate_size: Count = Field(description="Width of the dense layers.")
    moe_intermediate_size: AlignedCount = Field(description="Width of one expert.")
    n_routed_experts: Count
    num_experts_per_tok: Count
    n_shared_experts: Count
    norm_topk_prob: bool = True
    routed_scaling_factor: float = Field(gt=0)
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    attention_bias: bool = Field(False, description="Biases of q, k and v; o never has one.")
    use_qk_norm: bool = Field(False, description="RMSNorm of each query and key head before RoPE.")
    rope_theta: float = Field(gt=0)
    partial_rotary_factor: float = Field(0.5, gt=0, le=1, description="Share of head_dim that is rotated.")
    max_position_embeddings: Count
    dtype: str = Field(
        "", validation_alias=AliasChoices("dtype", "torch_dtype"), description="Of the weights, as in bfloat16."
    )
    rms_norm_eps: float = Field(gt=0)
    num_mtp_layers: int = Field(
        0,
        ge=0,
        validation_alias=AliasChoices("num_mtp_layers", "num_nextn_predict_layers"),
        description="MTP layers that follow.",
    )
    eos_token_ids: Annotated[tuple[int, ...], BeforeValidator(_ids)] = Field(
        (), validation_alias=AliasChoices("eos_token_ids", "eos_token_id")
    )

    @property
    def rotary_dim(self) -> int:
        """Leading dims of a head that RoPE rotates; the rest pass through."""
        return int(self.head_dim * self.partial_rotary_factor)

    def is_dense(self, layer_id: int) -> bool:
        return layer_id < self.first_k_dense_replace

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, raw: object) -> object:
        """Lift rope_parameters to the top, fill head_dim, and refuse what changes the numerics and is not built."""
        if not isinstance(raw, dict):
            raise ValueError("is not a JSON object")
        if (model_type := raw.get("model_type")) != SERVED:
            raise ValueError(_not_served(model_type))
        for key in ("quantization_config", "compression_config"):
            if raw.get(key) is not None:
                raise ValueError(f"{key} is set: quantised checkpoints are not supported yet; use the bf16 one")
        for key, allowed in (("hidden_act", "silu"), ("n_group", 1), ("topk_group", 1), ("tie_word_embeddings", False)):
            if raw.get(key, allowed) != allowed:
                raise ValueError(f"{key} {raw[key]!r} is not supported; glm4_moe models have {allowed!r}")
        if raw.get("rope_scaling") is not None:
            raise ValueError(f"rope_scaling {raw['rope_scaling']!r} is not supported; glm4_moe models have none")
        rope = raw.get("rope_parameters") or {}
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type != "default":
            raise ValueError(f"rope_type {rope_type!r} is not supported; glm4_moe models have 'default'")
        lifted = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
        values = {**raw, **lifted}
        if values.get("head_dim") is None and raw.get("num_attention_heads"):
            values["head_dim"] = raw.get("hidden_size", 0) // raw["num_attention_heads"]
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads} does not divide "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} is more than n_routed_experts {self.n_routed_experts}"
            )
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            raise ValueError(
                f"partial_rotary_factor {self.partial_rotary_factor} of head_dim {self.head_dim} is not an even number"
            )
        return self

    @classmethod
    def read(cls, folder: Path) -> "ModelConfig":
        """Return the configuration of the checkpoint in folder, or raise ConfigError naming what is wrong with it."""
        path = folder / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            hint = "" if folder.is_dir() else ": there is no such folder"
            raise ConfigError(f"{path} is missing{hint}; a Hugging Face checkpoint folder is needed") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            problems = "; ".join(_sentence(dict(problem)) for problem in error.errors())
            raise ConfigError(f"{path}: {problems}") from error


def _sentence(problem: dict[str, object]) -> str:
    location = problem["loc"]
    assert isinstance(location, tuple)
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not location:
        return message
    if problem["type"] == "missing":
        return f"{location[0]} is missing"
    return f"{location[0]} is {problem['input']!r}: {message}"
