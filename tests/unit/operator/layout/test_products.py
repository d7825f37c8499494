"""Which GPU a spec is bound to, and that nothing is guessed."""

from typing import Any

import pytest

from glm_operator.layout.products import PRODUCTS, product_of
from unit.operator.operator_builders import a_deployment, a_layout

AIR = {"name": "GLM-4.5-Air", "source": "pvc://weights/air/bf16"}
DEGREES = {"tensor": 4, "expert": 4}


def on(selector: dict[str, str] | None, **hardware: Any) -> dict[str, Any]:
    return {"device": "cuda", "gpu": {"perNode": 8}, "nodeSelector": selector, **hardware}


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "H100 SXM"),
        ({"nvidia.com/gpu.product": "NVIDIA-H200", "pool": "chat"}, "H200 SXM"),
        ({"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, "MI300X"),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb"}, None),
        ({"nvidia.com/gpu.product": "NVIDIA-H900"}, None),
        ({"pool": "NVIDIA-H200"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_node_selector_names_the_gpu_or_nobody_knows_it(selector: dict[str, str] | None, name: str | None) -> None:
    found = product_of(a_deployment(model=AIR, hardware=on(selector)).spec.hardware)
    assert (found.name if found is not None else None) == name


def test_a_cpu_is_no_gpu_whatever_the_node_has() -> None:
    hardware = {"device": "cpu", "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"}}
    assert product_of(a_deployment(hardware=hardware).spec.hardware) is None


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS.keys())
def test_figures_are_of_one_gpu_in_bytes_and_operations_a_second(product: Any) -> None:
    assert 0.5e12 <= product.memory_bytes_per_s <= 10e12
    assert 300e12 <= product.flops_bf16 < product.flops_8bit <= 5e15
    assert 50e6 <= product.on_chip_bytes <= 1e9


def test_a_plan_has_a_floor_where_model_and_gpu_are_known() -> None:
    h100 = on({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"})
    floor = a_layout(a_deployment(model=AIR, hardware=h100, parallelism=DEGREES)).floor
    assert floor is not None
    assert floor.hardware == "4 x H100 SXM in bf16"
    assert floor.step_s == pytest.approx(2.228e-3, rel=1e-3)


@pytest.mark.parametrize(
    "spec",
    [
        {"model": AIR, "hardware": on(None), "parallelism": DEGREES},
        {"model": AIR, "hardware": {"device": "cpu"}, "parallelism": DEGREES},
        {
            "model": {"name": "custom", "source": "file:///opt/model"},
            "hardware": on({"nvidia.com/gpu.product": "NVIDIA-H200"}),
        },
    ],
)
def test_a_plan_of_something_unknown_has_none(spec: dict[str, Any]) -> None:
    assert a_layout(a_deployment(**spec)).floor is None
