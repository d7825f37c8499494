"""How long a process that has just started needs from a checkpoint's files to a model that can compute.

Counted: config.json, memory for the parameters, reading them, the kernels with their threads. Not counted: starting
Python and importing. Beside it, in the same process and just before, `cat`: the same files, read piece by piece into
one buffer of 128 KiB, which stays in a core's cache. --fresh reads the files by as many threads into memory that the
process has never touched, and does nothing else: what a loader that ends with the weights in memory of its own comes
close to at best. Where a machine is virtual, memory may have to be given to it first, and that is slow.

Prints a JSON line.
"""

import argparse
import json
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from engines.machine import cat_seconds
from engines.ours import KEPT_BYTES, LARGE_BYTES, load
from safetensors.torch import load_file, save_file

from glm_edge.kept_memory import keep_freed_memory

_PIECE_BYTES = 4 * 2**20
_KEPT_WIDE = "e_score_correction_bias"  # fp32 in every checkpoint


def bf16_copy(folder: Path) -> Path:
    """Return a folder with the same model and weights in bf16, made if it is not there or older."""
    copy = folder.with_name(f"{folder.name}-bf16")
    source, target = folder / "model.safetensors", copy / "model.safetensors"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        copy.mkdir(exist_ok=True)
        (copy / "config.json").write_bytes((folder / "config.json").read_bytes())
        wide = load_file(source)
        tensors = {name: tensor if _KEPT_WIDE in name else tensor.bfloat16() for name, tensor in wide.items()}
        written = copy / "being-written"
        save_file(tensors, written, metadata={"format": "pt"})
        written.replace(target)
    return copy


def fresh_seconds(file: Path, threads: int) -> float:
    """Return how long threads need to read the file into new memory, in large pages where the system has some."""
    num_bytes = file.stat().st_size
    began_s = time.perf_counter()
    with mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory, file.open("rb") as source:
        memory.madvise(mmap.MADV_HUGEPAGE)

        def read(begin: int) -> None:
            with memoryview(memory) as whole, whole[begin : begin + _PIECE_BYTES] as piece:
                if os.preadv(source.fileno(), [piece], begin) != len(piece):
                    raise OSError(f"{file} was not read whole")

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, range(0, num_bytes, _PIECE_BYTES)))
        return time.perf_counter() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--fresh", action="store_true")
    arguments = parser.parse_args()
    file = arguments.model / "model.safetensors"
    keep_freed_memory(KEPT_BYTES, LARGE_BYTES)
    torch.set_num_threads(arguments.threads)
    cat_s = cat_seconds([file])
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    if arguments.fresh:
        fresh_seconds(file, arguments.threads)
    else:
        model = load(arguments.model, getattr(torch, arguments.dtype), arguments.threads)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    gb = file.stat().st_size / 1e9
    said = {"seconds": took_s, "cpu_s": cpu_s, "cat_s": cat_s, "gb": gb}
    print(json.dumps(said if arguments.fresh else {**said, "kernels": model.kernels}))


if __name__ == "__main__":
    main()
