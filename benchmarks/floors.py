"""How fast a training step could be at best: its arithmetic and its memory traffic over what the machine can do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a forward and a backward pass take.

    Attributes:
        flops: of matrix products, two for a multiplication and an addition.
        written: bytes of all operators' results, views left out: what goes through memory where nothing is fused.
        saved: bytes kept from the forward for the backward pass, parameters left out: the least that has to.
        operators: how many there were, views left out; on a GPU about as many kernels.
    """

    flops: float = 0
    written: float = 0
    saved: float = 0
    operators: float = 0

    def plus(self, other: Cost, weight: float = 1.0) -> Cost:
        """self + weight * other."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(mine + weight * its for mine, its in pairs))


class Written(TorchDispatchMode):
    """Counts operators and the bytes they write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        if not func._schema.is_mutable:
            given = {_storage(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            made = [x for x in made if _storage(x) not in given]
            if not made:
                return result  # a view
        self.operators += 1
        self.bytes += sum(x.nbytes for x in made)
        return result


def count(forward: Callable[[], Tensor], parameters: list[Tensor]) -> Cost:
    """The cost of a scalar's forward and backward pass; gradients of ``parameters`` are left empty."""
    own = {_storage(p) for p in parameters}
    saved: dict[int, Any] = {}

    def keep(x: Tensor) -> Tensor:
        if _storage(x) not in own:
            saved[_storage(x)] = x.untyped_storage()  # held, so that no later one gets its address
        return x

    with FlopCounterMode(display=False) as flops, Written() as written:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = forward()
        loss.backward()
    for p in parameters:
        p.grad = None
    return Cost(flops.get_total_flops(), written.bytes, sum(x.nbytes() for x in saved.values()), written.operators)


def at_size(measure: Callable[[int], Cost], size: int) -> Cost:
    """A batch's cost from those of 4 and of 8 molecules: it is a straight line, and the batch may be a thousand."""
    few, more = measure(4), measure(8)
    return few.plus(more.plus(few, -1), (size - 4) / 4)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / fastest(lambda: a @ b, device)


def copy_rate(device: torch.device) -> float:
    """Bytes/s read and written by a copy of far more than any cache holds."""
    size = 2**30
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / fastest(lambda: target.copy_(source), device)


def fastest(work: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """Seconds, the best of several: what the machine can do, whatever else it is doing."""
    work()
    spent: list[float] = []
    for _ in range(repeats):
        timed(work, device, spent)
    return min(spent)


def timed(work: Callable[[], T], device: torch.device, spent: list[float]) -> T:
    """The result of some work; the seconds until the device has finished it are added to a list."""
    begun = clock(device)
    result = work()
    spent.append(clock(device) - begun)
    return result


def clock(device: torch.device) -> float:
    """Seconds when all that was asked of a GPU is done; on a CPU those this process was given, a thread, so that what
    else the machine does makes no difference."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata
