"""The decoder of GPUs against the modules of the model, by Triton's interpreter: prompts, chunks, decode, graphs."""

import os
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glm_worker.model.config import ModelConfig
from glm_worker.model.cuda_decoder import CudaDecoder
from glm_worker.model.decode_graphs import GraphRoom
from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from integration.tiny_models import a_config, write_checkpoint

assert os.environ.get("TRITON_INTERPRET") == "1", "run by make triton"
torch.set_num_threads(1)

CPU, BLOCK_SIZE = torch.device("cpu"), 4
RAW = a_config(attention_bias=True, use_qk_norm=True, routed_scaling_factor=2.5)


@pytest.fixture(autouse=True)
def _few_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a GPU with few multiprocessors: the interpreter takes programs one after the other."""
    monkeypatch.setattr("glm_worker.kernels.cuda.paged_attention._PROGRAMS", 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GlmMoe:
    folder: Path = write_checkpoint(tmp_path_factory.mktemp("tiny"), RAW)
    config = ModelConfig.model_validate(RAW)
    return load_model(folder, config, Mesh(), Communicator.single(), CPU, torch.float32)


def a_cache(model: GlmMoe) -> KVCache:
    return KVCache.allocate(model.config, Mesh(), 12, BLOCK_SIZE, torch.float32, CPU)


def a_decoder(model: GlmMoe) -> CudaDecoder:
    layers = [(layer.attention, layer.mlp, layer.attention_norm, layer.mlp_norm) for layer in model._layers]
    return CudaDecoder(model.config, model.embed_tokens, layers, model.norm, model.lm_head, model.expert_load)


def a_step(starts: list[int], ids: list[list[int]], tables: list[list[int]]) -> ForwardBatch:
    """Each sequence with some tokens from its start on, all sampled."""
    positions = [[start + i for i in range(len(own))] for start, own in zip(starts, ids, strict=True)]
    slots = [
        table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE
        for own, table in zip(positions, tables, strict=True)
        for p in own
    ]
    ends = [sum(map(len, ids[: i + 1])) for i in range(len(ids))]
    contexts = [start + len(own) for start, own in zip(starts, ids, strict=True)]
    return HostBatch.of(
        *(list(chain(*ids)), list(chain(*positions)), slots, [0, *ends], contexts, tables, [end - 1 for end in ends])
    ).on_device(BLOCK_SIZE, CPU)


STEPS = [
    a_step([0, 0], [[5, 9, 3, 7, 8], [4]], [[3, 1], [2]]),
    a_step([5, 1], [[6, 11], [12]], [[3, 1], [2]]),
    a_step([7, 2, 0], [[1], [2], [3]], [[3, 1, 0], [2], [5]]),
    a_step([8, 3], [[2], [8]], [[3, 1, 0], [2]]),
]


@pytest.fixture(scope="module")
def expected(model: GlmMoe) -> list[Tensor]:
    cache = a_cache(model)
    return [model(batch, model.plan(batch), cache) for batch in STEPS]


def test_every_step_has_the_logits_of_the_modules(model: GlmMoe, expected: list[Tensor]) -> None:
    """fp32: sums in another order, over a few layers."""
    cache, decoder = a_cache(model), a_decoder(model)
    for batch, want in zip(STEPS, expected, strict=True):
        torch.testing.assert_close(decoder.forward(decoder.plan(batch), cache), want, atol=1e-5, rtol=1e-5)


def test_who_compares_layers_hears_the_states_that_the_modules_have(
    model: GlmMoe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `glm-worker check` looks at: it is to test what would serve."""
    wanted: list[Tensor] = []
    monkeypatch.setattr(model, "hear", lambda _, x_TD: wanted.append(x_TD.clone()))
    model(STEPS[0], model.plan(STEPS[0]), a_cache(model))
    decoder, heard = a_decoder(model), list[tuple[int, Tensor]]()
    decoder.forward(decoder.plan(STEPS[0]), a_cache(model), lambda number, x_TD: heard.append((number, x_TD.clone())))
    assert [number for number, _ in heard] == list(range(model.config.num_hidden_layers + 1))
    torch.testing.assert_close([x_TD for _, x_TD in heard], wanted, atol=1e-5, rtol=1e-5)


def test_steps_that_a_graph_computes_have_the_same_logits_and_load(model: GlmMoe, expected: list[Tensor]) -> None:
    assert model.expert_load is not None
    cache, decoder = a_cache(model), a_decoder(model)
    model.expert_load.take()
    replays: list[int] = []

    def capture(compute):  # type: ignore[no-untyped-def]
        compute()

        def replay() -> Tensor:
            logits: Tensor = compute()
            replays.append(len(logits))
            return logits

        return replay

    decoder.capture(cache, GraphRoom(4, 3, BLOCK_SIZE), capture, lambda done, total: None)
    assert decoder.graph_sizes == (1, 2, 4)
    assert sum(model.expert_load.take()) == 0
    for batch, want in zip(STEPS, expected, strict=True):
        torch.testing.assert_close(decoder.forward(decoder.plan(batch), cache), want, atol=1e-5, rtol=1e-5)
        num_sparse = model.config.num_hidden_layers - model.config.first_k_dense_replace
        routed = len(batch.token_ids_T) * model.config.num_experts_per_tok * num_sparse
        assert sum(model.expert_load.take()) == routed
    assert replays == [4, 2]
