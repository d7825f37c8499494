"""Loading: a rank reads its own bytes only, and whatever does not fit the configuration is named."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from glm_worker.errors import ConfigError
from glm_worker.model import transfer
from glm_worker.model.config import ModelConfig
from glm_worker.model.glm_moe import GlmMoe, build
from glm_worker.model.tensor_map import tensor_reads
from glm_worker.model.weights import Checkpoint, fill, load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config, random_tensors, write_checkpoint, write_weights

hold_torch_to_one_thread()

CPU = torch.device("cpu")
RAW = a_config(attention_bias=True, use_qk_norm=True)
CONFIG = ModelConfig.model_validate(RAW)


def load(folder: Path, mesh: Mesh | None = None, dtype: torch.dtype = torch.float32) -> GlmMoe:
    return load_model(folder, ModelConfig.read(folder), mesh or Mesh(), Communicator.single(), CPU, dtype)


def a_model(mesh: Mesh | None = None) -> GlmMoe:
    return build(CONFIG, mesh or Mesh(), Communicator.single(), CPU, torch.float32)


def filled(folder: Path, mesh: Mesh) -> GlmMoe:
    model = a_model(mesh)
    fill(model, Checkpoint(folder), tensor_reads(CONFIG, mesh), lambda done, total: None)
    return model


@contextmanager
def threads_of_torch(num_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    (folder / "config.json").write_text(json.dumps(RAW))
    write_weights(folder, tensors)
    return folder


def bytes_by_tensor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count from now on what the system is asked for of each tensor, whatever the reader says of itself."""
    places, counted, preadv = {}, Counter[str](), os.preadv
    for path in folder.glob("*.safetensors"):
        header = path.read_bytes()
        first = 8 + int.from_bytes(header[:8], "little")
        for name, entry in json.loads(header[8:first]).items():
            if name != "__metadata__":
                places[name] = path.name, *(first + offset for offset in entry["data_offsets"])

    def noted(descriptor: int, buffers: list[memoryview], begin: int) -> int:
        num_read = preadv(descriptor, buffers, begin)
        end, file = begin + num_read, Path(f"/proc/self/fd/{descriptor}").readlink().name
        counted.update(
            {
                name: min(end, last) - max(begin, first)
                for name, (where, first, last) in places.items()
                if where == file and first < end and begin < last
            }
        )
        return num_read

    monkeypatch.setattr(os, "preadv", noted)
    return counted


@pytest.mark.parametrize(("world_size", "tensor_parallel"), [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 4)])
def test_a_rank_reads_the_bytes_of_its_experts_and_heads_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, tensor_parallel: int
) -> None:
    folder = write_checkpoint(tmp_path, RAW, num_shards=3)
    tensors = random_tensors(CONFIG)
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    split = re.compile(r"\.([qkvo]_proj)\.")
    vocab_row = CONFIG.hidden_size * 4
    counted = bytes_by_tensor(folder, monkeypatch)
    for rank in range(world_size):
        mesh = Mesh(world_size, tensor_parallel, rank)
        counted.clear()
        filled(folder, mesh)
        own = {f".experts.{expert}." for expert in mesh.experts(CONFIG.n_routed_experts)}
        expert_names = {name for name in counted if ".experts." in name}
        assert {re.search(r"\.experts\.\d+\.", name)[0] for name in expert_names} == own
        experts = sum(size for name, size in sizes.items() if ".experts." in name) // world_size
        attention = sum(size for name, size in sizes.items() if split.search(name)) // tensor_parallel
        head = len(mesh.vocab(CONFIG.vocab_size)) * vocab_row
        rest = sum(
            size
            for name, size in sizes.items()
            if ".experts." not in name and not split.search(name) and name != "lm_head.weight"
        )
        assert counted.total() == experts + attention + head + rest


@pytest.mark.parametrize("piece_bytes", [None, 192])
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize(("world_size", "tensor_parallel"), [(1, 1), (2, 2), (4, 2), (4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_parameters_are_what_torch_makes_of_the_tensors_whatever_the_types_pieces_and_threads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: torch.dtype,
    dtype: torch.dtype,
    world_size: int,
    tensor_parallel: int,
    num_threads: int,
    piece_bytes: int | None,
) -> None:
    if piece_bytes:  # less than a row of some tensors, and a few rows of others
        monkeypatch.setattr(transfer, "DIRECT_BYTES", piece_bytes)
        monkeypatch.setattr(transfer, "BUFFER_BYTES", piece_bytes)
    folder = write_checkpoint(tmp_path, RAW, num_shards=2, dtype=stored)
    tensors = random_tensors(CONFIG, dtype=stored)
    for rank in {0, world_size - 1}:
        mesh = Mesh(world_size, tensor_parallel, rank)
        with threads_of_torch(num_threads):
            model = load(folder, mesh, dtype)
        expected = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
        for read in tensor_reads(CONFIG, mesh):
            part = range(read.shape[read.dim]) if read.part is None else read.part
            target = expected[read.parameter] if read.expert is None else expected[read.parameter][read.expert]
            target[read.first_row : read.first_row + read.part_shape[0]] = tensors[read.name].narrow(
                read.dim, part.start, len(part)
            )
        rows = len(mesh.vocab(CONFIG.vocab_size))  # those after them are padding, and unset
        for name, parameter in model.named_parameters():
            if name == "lm_head.weight":
                assert torch.equal(parameter[:rows], expected[name][:rows])
            else:
                assert torch.equal(parameter, expected[name]), name


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_of_torch_are_as_before_after_loading_and_after_what_cannot_be_loaded(
    tmp_path: Path, num_threads: int
) -> None:
    folder = write_checkpoint(tmp_path, RAW)
    with threads_of_torch(num_threads):
        load(folder)
        assert torch.get_num_threads() == num_threads
        checkpoint = Checkpoint(folder)
        os.truncate(folder / "model.safetensors", 50_000)
        with pytest.raises(ConfigError, match="cut off"):
            fill(a_model(), checkpoint, tensor_reads(CONFIG, Mesh()), lambda done, total: None)
        assert torch.get_num_threads() == num_threads


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_file_that_gets_shorter_while_it_is_read_is_named(tmp_path: Path, num_threads: int) -> None:
    file = write_checkpoint(tmp_path, RAW) / "model.safetensors"
    checkpoint = Checkpoint(tmp_path)
    os.truncate(file, file.stat().st_size - 100)
    with (
        threads_of_torch(num_threads),
        pytest.raises(ConfigError, match=r"model\.safetensors is damaged or cut off: it ends at byte \d+"),
    ):
        fill(a_model(), checkpoint, tensor_reads(CONFIG, Mesh()), lambda done, total: None)


def test_files_are_closed_once_the_model_is_loaded(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, RAW, num_shards=3)
    load(folder)
    opened = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if path.is_relative_to(folder.resolve())]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system does not forget peaks")
@pytest.mark.parametrize(("stored", "dtype"), [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)])
def test_loading_never_takes_more_memory_than_the_parameters_and_some_buffers(
    tmp_path: Path, stored: torch.dtype, dtype: torch.dtype
) -> None:
    raw = a_config(vocab_size=50_000, hidden_size=256)
    write_checkpoint(tmp_path, raw, dtype=stored)
    Path("/proc/self/clear_refs").write_text("5")  # from here on a new peak is looked for
    before = memory_bytes("VmRSS")
    model = load(tmp_path, dtype=dtype)
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    assert num_bytes > 100 * 2**20
    assert memory_bytes("VmHWM") - before < 1.15 * num_bytes


def memory_bytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_every_element_of_every_parameter_is_filled(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, RAW)
    for rank in range(4):
        mesh = Mesh(4, 2, rank)
        model = build(CONFIG, mesh, Communicator.single(), CPU, torch.float32)
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
        fill(model, Checkpoint(folder), tensor_reads(CONFIG, mesh), lambda done, total: None)
        padding = mesh.vocab_share(CONFIG.vocab_size) - len(mesh.vocab(CONFIG.vocab_size))
        for name, parameter in model.named_parameters():
            num_unset = int(parameter.isnan().sum())
            assert num_unset == (padding * CONFIG.hidden_size if name == "lm_head.weight" else 0), name


def test_shards_and_one_file_give_the_same_model(tmp_path: Path) -> None:
    one, many = (
        load(write_checkpoint(tmp_path / "one", RAW)),
        load(write_checkpoint(tmp_path / "many", RAW, num_shards=4)),
    )
    for (name, a), (_, b) in zip(one.named_parameters(), many.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_router_stays_in_fp32_when_the_model_is_bf16(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path, RAW), dtype=torch.bfloat16)
    wide = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert {name.split("mlp.")[1] for name in wide} == {"router.weight", "router.correction_bias"}


def test_progress_begins_at_zero_never_falls_and_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = write_checkpoint(tmp_path, RAW)
    load_model(folder, CONFIG, Mesh(), Communicator.single(), CPU, torch.float32, lambda d, t: seen.append((d, t)))
    done, totals = zip(*seen, strict=True)
    assert (done[0], done[-1]) == (0, totals[-1])
    assert list(done) == sorted(done)
    assert len(set(totals)) == 1


def test_mtp_tensors_are_known_and_left_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = random_tensors(CONFIG) | {"model.layers.3.eh_proj.weight": torch.zeros(64, 128)}
    counted = bytes_by_tensor(write(tmp_path, tensors), monkeypatch)
    filled(tmp_path, Mesh())
    assert set(counted) == tensors.keys() - {"model.layers.3.eh_proj.weight"}


def test_a_missing_tensor_is_named_even_on_a_rank_that_would_not_read_it(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    del tensors["model.layers.1.mlp.experts.7.up_proj.weight"]
    with pytest.raises(ConfigError, match=r"tensor model\.layers\.1\.mlp\.experts\.7\.up_proj\.weight is missing"):
        load(write(tmp_path, tensors), Mesh(2, 1, 0))


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG) | {"model.layers.0.self_attn.o_proj.bias": torch.zeros(64)}
    with pytest.raises(ConfigError, match=r"tensor model\.layers\.0\.self_attn\.o_proj\.bias is unknown"):
        load(write(tmp_path, tensors))


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "model.layers.2.mlp.experts.3.down_proj.weight", "model.norm.weight"]
)
def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path, name: str) -> None:
    tensors = random_tensors(CONFIG)
    tensors[name] = torch.zeros(5, 5)
    expected = str(list(random_tensors(CONFIG)[name].shape))
    with pytest.raises(
        ConfigError, match=re.escape(f"tensor {name} has the shape [5, 5]; config.json asks for {expected}")
    ):
        load(write(tmp_path, tensors))


def test_a_type_that_is_not_supported_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.float8_e4m3fn)
    with pytest.raises(ConfigError, match=r"tensor lm_head\.weight has the type F8_E4M3; supported are F32, BF16, F16"):
        load(write(tmp_path, tensors))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, RAW, num_shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model-00002-of-00003\.safetensors is missing; .*index\.json names it"):
        load(folder)


def test_a_shard_without_a_tensor_that_the_index_promises_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, RAW, num_shards=2)
    index = folder / "model.safetensors.index.json"
    files = json.loads(index.read_text())["weight_map"]
    files["lm_head.weight"] = next(file for file in files.values() if file != files["lm_head.weight"])
    index.write_text(json.dumps({"weight_map": files}))
    with pytest.raises(ConfigError, match=r"lm_head\.weight"):
        load(folder)


def test_an_index_that_is_none_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, RAW)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')
    with pytest.raises(ConfigError, match=r"model\.safetensors\.index\.json cannot be read.*weight_map"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, keep: float) -> None:
    file = write_checkpoint(tmp_path, RAW) / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ConfigError, match=r"model\.safetensors is damaged or cut off"):
        load(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(RAW))
    with pytest.raises(ConfigError, match=r"model\.safetensors is missing"):
        load(tmp_path)


def test_a_mesh_that_does_not_fit_the_model_is_refused_before_any_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel 8 does not divide num_key_value_heads 4; use 1, 2 or 4"):
        load_model(tmp_path, CONFIG, Mesh(8, 8, 0), Communicator.single(), CPU, torch.float32)
