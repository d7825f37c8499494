"""Reading a safetensors checkpoint: one file, or the shards of model.safetensors.index.json. Each rank reads its part.

Anything that does not match the configuration (a tensor missing, unknown, of another shape or an unknown type, a file
missing or cut off) is a ConfigError naming it, before the model runs.
"""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import torch

from glm_worker.errors import ConfigError
from glm_worker.model.config import ModelConfig
from glm_worker.model.glm_moe import GlmMoe, build
from glm_worker.model.safetensors_file import SafetensorsFile, StoredTensor
from glm_worker.model.tensor_map import TensorRead, is_mtp, tensor_names, tensor_reads
from glm_worker.model.transfer import Piece, Target, transfer
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh

Progress = Callable[[int, int], object]
"""Called with the bytes done and the bytes in total."""

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
INDEX = "model.safetensors.index.json"


class Checkpoint:
    """The tensors of a checkpoint folder by name. Files are opened when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: dict[str, SafetensorsFile] = {}
        self._files = self._list_files()

    @property
    def names(self) -> set[str]:
        return set(self._files)

    def piece(self, read: TensorRead, target: Target) -> Piece:
        """Return what a read takes from its file. Raises ConfigError if the tensor is not as the configuration says."""
        file = self._open(self._files[read.name])
        stored = file.tensors.get(read.name)
        if stored is None:
            raise ConfigError(f"{file.path}: tensor {read.name} is missing; {INDEX} says that it is there")
        if stored.shape != read.shape:
            raise ConfigError(
                f"{file.path}: tensor {read.name} has the shape {list(stored.shape)}; "
                f"config.json asks for {list(read.shape)}"
            )
        if stored.dtype not in DTYPES:
            raise ConfigError(
                f"{file.path}: tensor {read.name} has the type {stored.dtype}; supported are {', '.join(DTYPES)}"
            )
        dtype = DTYPES[stored.dtype]
        begins, run_len = _runs(read, stored, dtype.itemsize)
        return Piece(file, dtype, begins, run_len, target, _first_element(read, target))

    def _list_files(self) -> dict[str, str]:
        index = self.folder / INDEX
        if not index.exists():
            return dict.fromkeys(self._open("model.safetensors").tensors, "model.safetensors")
        try:
            files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{index} cannot be read: {error!r}; an object with a weight_map is needed") from error
        for file in sorted(set(files.values())):
            if not (self.folder / file).is_file():
                raise ConfigError(f"{self.folder / file} is missing; {INDEX} names it")
        return dict(files)

    def _open(self, file: str) -> SafetensorsFile:
        if file not in self._opened:
            self._opened[file] = SafetensorsFile(self.folder / file)
        return self._opened[file]


def load_model(
    folder: Path,
    config: ModelConfig,
    mesh: Mesh,
    comm: Communicator,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    *,
    fixed_order: bool = False,
) -> GlmMoe:
    """Return this rank's part of the model, on device, in dtype (router weights and its bias stay in fp32)."""
    # First: a mesh that does not fit should not wait for any file
    model = build(config, mesh, comm, device, dtype, fixed_order=fixed_order)
    fill(model, Checkpoint(folder), tensor_reads(config, mesh), progress or _nobody)
    return model


def fill(model: GlmMoe, checkpoint: Checkpoint, reads: list[TensorRead], progress: Progress) -> None:
    """Fill every parameter of the model from the checkpoint."""
    _check_names(checkpoint, model.config)
    targets = {name: Target(parameter) for name, parameter in model.named_parameters()}
    pieces = [checkpoint.piece(read, targets[read.parameter]) for read in reads]
    total = sum(piece.num_bytes for piece in pieces)
    progress(0, total)
    transfer(pieces, lambda done: progress(done, total))
    progress(total, total)


def _nobody(done_bytes: int, total_bytes: int) -> None:
    pass


def _runs(read: TensorRead, stored: StoredTensor, item_bytes: int) -> tuple[range, int]:
    """Return where each run of the wanted part begins in the file, and the elements of a run. Columns: a run a row."""
    start = 0 if read.part is None else read.part.start
    row_bytes = prod(read.shape[1:]) * item_bytes
    if read.dim == 0:
        begin = stored.begin + start * row_bytes
        return range(begin, begin + 1), read.num_elements
    begin = stored.begin + start * item_bytes
    return range(begin, begin + read.shape[0] * row_bytes, row_bytes), read.part_shape[1]


def _first_element(read: TensorRead, target: Target) -> int:
    """Return where in the target the rows of a read begin."""
    expert = 0 if read.expert is None else read.expert * target.stride
    return expert + read.first_row * prod(read.part_shape[1:])


def _check_names(checkpoint: Checkpoint, config: ModelConfig) -> None:
    expected = tensor_names(config)
    if missing := sorted(expected - checkpoint.names):
        raise ConfigError(f"{checkpoint.folder}: {_named(missing)} missing; config.json asks for it")
    if extra := sorted(name for name in checkpoint.names - expected if not is_mtp(name, config)):
        raise ConfigError(f"{checkpoint.folder}: {_named(extra)} unknown; by config.json this model has no such weight")


def _named(names: list[str]) -> str:
    return f"tensor {names[0]} is" if len(names) == 1 else f"tensor {names[0]} (and {len(names) - 1} more) is"
