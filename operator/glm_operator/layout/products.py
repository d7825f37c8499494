"""GPU products whose datasheets the planner knows, and how a spec names one. Pure.

Figures are of one GPU, without structured sparsity, as published; no product is guessed from another. Sources:
H100 and H200 (SXM, NVL): their datasheets at nvidia.com (resources.nvidia.com/en-us-tensor-core). H100 PCIe: product
brief PB-11133-001 and the Hopper white paper. B200: nvidia.com/en-us/data-center/hgx, an eighth of what eight have.
A100 and L40S: their datasheets, nvidia.com/en-us/data-center/a100 and …/l40s. MI300X: its data sheet,
amd.com/en/products/accelerators/instinct. Caches: NVIDIA's tuning guides of Ampere, Ada, Hopper and Blackwell, AMD's
CDNA 3 white paper.
"""

from dataclasses import dataclass

from glm_operator.api.spec import Hardware

LABELS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name")
"""Labels of a node that name its GPUs, as NVIDIA's feature discovery and AMD's node labeller set them."""


@dataclass(frozen=True)
class Product:
    """What a GPU can do at best, as its datasheet says."""

    name: str
    memory_bytes_per_s: float
    flops_bf16: float  # multiplications and additions a second, dense
    flops_8bit: float  # of fp8; of int8 where the product has no fp8
    on_chip_bytes: float  # all caches, registers and shared memory together, rounded up


_H100 = Product("H100 SXM", 3.35e12, 989.5e12, 1979e12, 120e6)
_H100_PCIE = Product("H100 PCIe", 2.0e12, 756.5e12, 1513e12, 120e6)
_H100_NVL = Product("H100 NVL", 3.9e12, 835.5e12, 1670.5e12, 120e6)
_H200 = Product("H200 SXM", 4.8e12, 989.5e12, 1979e12, 120e6)
_H200_NVL = Product("H200 NVL", 4.8e12, 835.5e12, 1670.5e12, 120e6)
_B200 = Product("B200", 8.0e12, 2250e12, 4500e12, 220e6)
_A100_40GB = Product("A100 40GB", 1.555e12, 312e12, 624e12, 100e6)
_A100_PCIE = Product("A100 80GB PCIe", 1.935e12, 312e12, 624e12, 100e6)
_A100 = Product("A100 80GB SXM", 2.039e12, 312e12, 624e12, 100e6)
_L40S = Product("L40S", 0.864e12, 362.05e12, 733e12, 160e6)
_MI300X = Product("MI300X", 5.3e12, 1307.4e12, 2614.9e12, 500e6)

PRODUCTS: dict[str, Product] = {
    "NVIDIA-H100-80GB-HBM3": _H100,
    "NVIDIA-H100-PCIe": _H100_PCIE,
    "NVIDIA-H100-NVL": _H100_NVL,
    "NVIDIA-H200": _H200,
    "NVIDIA-H200-NVL": _H200_NVL,
    "NVIDIA-B200": _B200,
    "NVIDIA-A100-SXM4-40GB": _A100_40GB,
    "NVIDIA-A100-PCIE-40GB": _A100_40GB,
    "NVIDIA-A100-80GB-PCIe": _A100_PCIE,
    "NVIDIA-A100-SXM4-80GB": _A100,
    "NVIDIA-L40S": _L40S,
    "AMD_Instinct_MI300X_OAM": _MI300X,
}
"""By what a node's label says. A part of a GPU (MIG) has another label, and no row."""


def product_of(hardware: Hardware) -> Product | None:
    """Return the GPU that every rank is bound to run on; None for CPUs and where the spec does not say it.

    hardware.nodeSelector says it: a pod runs on no node with another label. Nodes are not looked at: what one of them
    has, the next one need not have.
    """
    if hardware.device != "cuda":
        return None
    wanted = hardware.node_selector or {}
    return next((PRODUCTS[wanted[label]] for label in LABELS if wanted.get(label) in PRODUCTS), None)
