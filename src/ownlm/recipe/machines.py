"""GPUs that are not here: what their datasheets promise, what they cost, and what training makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ownlm.runtime.errors import BudgetError, OwnLMError

NODE = 8
"""GPUs that one machine holds."""
ONE_NODE, MANY_NODES = 0.40, 0.35
"""The assumed share of the datasheet's rate that training reaches (MFU) from width 1,024 on.

torchtitan reports 33 to 39 % on H100 without float8 (Liang et al. 2024, arXiv 2410.06511); good single-node programs
reach more.
"""
PRICES = "typical on-demand prices of specialised clouds in 2026; they differ by a factor of two between providers"
STARTING = 120.0
"""Seconds in which a rented machine compiles, reads and saves, and does not train."""


@dataclass(frozen=True)
class Gpu:
    """Dense bf16 FLOP/s with fp32 accumulation (no sparsity), memory in bytes, bytes/s, and dollars an hour."""

    name: str
    flops: float
    memory: float
    bandwidth: float
    dollars: float
    source: str


_HOPPER = "nvidia.com/en-us/data-center/h100, datasheet: 1,979 TFLOP/s with sparsity, half of it dense"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("b200", 2250e12, 180e9, 7.7e12, 5.00, "NVIDIA HGX B200 datasheet: 4.5 PFLOP/s with sparsity, half dense"),
        Gpu("h200", 989e12, 141e9, 4.8e12, 3.50, "nvidia.com/en-us/data-center/h200: as the H100, more memory"),
        Gpu("h100", 989e12, 80e9, 3.35e12, 3.00, _HOPPER),
        Gpu("h100-pcie", 756e12, 80e9, 2.0e12, 2.40, "NVIDIA H100 PCIe datasheet: 1,513 TFLOP/s with sparsity"),
        Gpu("a100", 312e12, 80e9, 2.04e12, 1.50, "nvidia.com/en-us/data-center/a100, datasheet: 312 TFLOP/s dense"),
        Gpu("a100-40gb", 312e12, 40e9, 1.56e12, 1.20, "nvidia.com/en-us/data-center/a100, datasheet"),
        Gpu("l40s", 362e12, 48e9, 864e9, 1.00, "NVIDIA L40S datasheet: 733 TFLOP/s with sparsity, half of it dense"),
        Gpu("l4", 121e12, 24e9, 300e9, 0.60, "NVIDIA L4 datasheet: 242 TFLOP/s with sparsity, half of it dense"),
        Gpu("a10", 125e12, 24e9, 600e9, 0.70, "NVIDIA A10 datasheet: 125 TFLOP/s dense"),
        Gpu("rtx4090", 165e12, 24e9, 1008e9, 0.40, "NVIDIA Ada architecture whitepaper: 165.2 TFLOP/s, fp32 sums"),
        Gpu("rtx3090", 71e12, 24e9, 936e9, 0.25, "NVIDIA GA102 whitepaper: 71 TFLOP/s dense, fp32 accumulation"),
        Gpu("mi300x", 1307e12, 192e9, 5.3e12, 2.50, "AMD Instinct MI300X datasheet: 1,307 TFLOP/s dense"),
    )
}


def find_gpu(name: str) -> Gpu:
    """
    Raises:
        OwnLMError: a GPU that is not in the table; the message lists those that are.
    """
    found = GPUS.get(name.lower().replace(" ", "").replace("_", "-"))
    if found is None:
        raise OwnLMError(f"--gpu {name}: its datasheet is not known here. There is: {', '.join(sorted(GPUS))}.")
    return found


@dataclass(frozen=True)
class Rent:
    """`count` GPUs for so many `hours`."""

    gpu: Gpu
    count: int
    hours: float

    @property
    def dollars(self) -> float:
        """What it costs at the table's price."""
        return self.count * self.hours * self.gpu.dollars

    def utilisation(self, width: int) -> float:
        """The assumed share of the datasheet's rate: less for narrow matrices, which feed the units badly."""
        full = ONE_NODE if self.count <= NODE else MANY_NODES
        return full * min(1.0, math.sqrt(width / 1024))

    def flops(self, width: int) -> float:
        """Operations done in all that time on a model of this width."""
        return self.count * self.gpu.flops * self.utilisation(width) * max(0.0, 3600 * self.hours - STARTING)


def rent(gpu: Gpu, hours: float | None, dollars: float | None, count: int | None) -> Rent:
    """Fills in what was not said: dollars and hours give the number of GPUs, either one with the number the other.

    Raises:
        BudgetError: a figure that is not above zero, too little money for one GPU, or more asked for than it pays.
        OwnLMError: neither hours nor dollars.
    """
    for name, value in (("hours", hours), ("dollars", dollars), ("count", count)):
        if value is not None and not 0 < value < math.inf:
            raise BudgetError(f"--{name} {value:g}: it must be a number above zero.")
    if hours is None and dollars is None:
        raise OwnLMError("--gpu needs a budget: add --hours 2, --dollars 48, or both.")
    if hours is None:
        assert dollars is not None
        found = Rent(gpu, count or 1, dollars / (gpu.dollars * (count or 1)))
    elif dollars is None or count is not None:
        found = Rent(gpu, count or 1, hours)
    else:
        affordable = int(dollars / (gpu.dollars * hours) + 1e-9)
        if affordable < 1:
            raise BudgetError(
                f"${dollars:g} pay for {60 * dollars / gpu.dollars:.0f} minutes of one {gpu.name} (${gpu.dollars:.2f} "
                f"an hour), not for {hours:g} hours. Give --dollars {math.ceil(gpu.dollars * hours)}, or fewer --hours."
            )
        found = Rent(gpu, affordable if affordable < NODE else affordable // NODE * NODE, hours)
    if dollars is not None and found.dollars > dollars * (1 + 1e-9):
        raise BudgetError(
            f"{found.count} x {gpu.name} for {found.hours:g} hours cost ${found.dollars:.2f} at ${gpu.dollars:.2f} an "
            f"hour, more than the ${dollars:g} given. Leave out --count, --hours or --dollars."
        )
    if 3600 * found.hours <= 2 * STARTING:
        raise BudgetError(f"{3600 * found.hours:.0f} s of a {gpu.name} are gone before training starts. Give more.")
    return found
