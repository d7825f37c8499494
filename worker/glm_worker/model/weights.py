"""Reading a safetensors checkpoint: one file, or the shards of model.safetensors.index.json. Each rank reads its part.

Anything that does not match the configuration (a tensor missing, unknown, of another shape or an unknown type, a file
missing or cut off) is a ConfigError naming it, before the model runs.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glm_worker.errors import ConfigError
from glm_worker.model.config import ModelConfig
from glm_worker.model.glm_moe import GlmMoe, build
from glm_worker.model.tensor_map import TensorRead, is_mtp, tensor_names, tensor_reads
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh

Progress = Callable[[int, int], object]
"""Called with the bytes done and the bytes in total."""

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
INDEX = "model.safetensors.index.json"


class Checkpoint:
    """The tensors of a checkpoint folder by name. Files are mapped into memory when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes_read = 0
        self.names_read: set[str] = set()
        self._handles: dict[str, Any] = {}  # safe_open, whose methods are not typed
        self._files = self._list_files()

    @property
    def names(self) -> set[str]:
        return set(self._files)

    def num_bytes(self, read: TensorRead) -> int:
        """Return what a read costs. Raises ConfigError if the tensor is not as the configuration says."""
        view = self._view(read)
        shape, dtype = tuple(view.get_shape()), view.get_dtype()
        if shape != read.shape:
            raise ConfigError(
                f"{self._where(read)} has the shape {list(shape)}; config.json asks for {list(read.shape)}"
            )
        if dtype not in ITEM_BYTES:
            raise ConfigError(f"{self._where(read)} has the type {dtype}; supported are {', '.join(ITEM_BYTES)}")
        return read.num_elements * ITEM_BYTES[dtype]

    def read(self, read: TensorRead) -> Tensor:
        """Return the wanted part of a tensor; the rest of it is not touched."""
        view = self._view(read)
        part = slice(None) if read.part is None else slice(read.part.start, read.part.stop)
        tensor: Tensor = view[part] if read.dim == 0 else view[:, part]
        self.bytes_read += tensor.nbytes
        self.names_read.add(read.name)
        return tensor

    def _list_files(self) -> dict[str, str]:
        index = self.folder / INDEX
        if not index.exists():
            return dict.fromkeys(self._open("model.safetensors").keys(), "model.safetensors")
        try:
            files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{index} cannot be read: {error!r}; an object with a weight_map is needed") from error
        for file in sorted(set(files.values())):
            if not (self.folder / file).is_file():
                raise ConfigError(f"{self.folder / file} is missing; {INDEX} names it")
        return dict(files)

    def _open(self, file: str) -> Any:
        if file not in self._handles:
            path = self.folder / file
            try:
                self._handles[file] = safe_open(path, framework="pt")
            except FileNotFoundError as error:
                raise ConfigError(f"{path} is missing; weights are read from safetensors files only") from error
            except (OSError, SafetensorError) as error:
                raise ConfigError(f"{path} is damaged or cut off: {error}") from error
        return self._handles[file]

    def _view(self, read: TensorRead) -> Any:
        try:
            return self._open(self._files[read.name]).get_slice(read.name)
        except SafetensorError as error:
            raise ConfigError(f"{self._where(read)} is missing; {INDEX} says that it is there") from error

    def _where(self, read: TensorRead) -> str:
        return f"{self.folder / self._files[read.name]}: tensor {read.name}"


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
    total = sum(checkpoint.num_bytes(read) for read in reads)
    parameters = dict(model.named_parameters())
    progress(0, total)
    for read in reads:
        rows = _rows(parameters[read.parameter], read)
        rows.copy_(checkpoint.read(read))
        progress(checkpoint.bytes_read, total)


def _nobody(done_bytes: int, total_bytes: int) -> None:
    pass


def _rows(parameter: Tensor, read: TensorRead) -> Tensor:
    target = parameter if read.expert is None else parameter[read.expert]
    return target[read.first_row : read.first_row + read.part_shape[0]]


def _check_names(checkpoint: Checkpoint, config: ModelConfig) -> None:
    expected = tensor_names(config)
    if missing := sorted(expected - checkpoint.names):
        raise ConfigError(f"{checkpoint.folder}: {_named(missing)} missing; config.json asks for it")
    if extra := sorted(name for name in checkpoint.names - expected if not is_mtp(name, config)):
        raise ConfigError(f"{checkpoint.folder}: {_named(extra)} unknown; by config.json this model has no such weight")


def _named(names: list[str]) -> str:
    return f"tensor {names[0]} is" if len(names) == 1 else f"tensor {names[0]} (and {len(names) - 1} more) is"
