"""Memory of this process and of the machine, in MB, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

import torch


def peak_mb() -> float:
    """Most memory this process ever held (resident set).

    Not ``resource.getrusage``: its figure is inherited from the process that started this one.
    """
    return _field("/proc/self/status", "VmHWM")


def resident_mb() -> float:
    """Memory this process holds now."""
    return _field("/proc/self/status", "VmRSS")


def available_mb(device: torch.device) -> float:
    """Memory that can still be had without swapping, on the GPU if that is the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e6
    return _field("/proc/meminfo", "MemAvailable")


def _field(file: str, name: str) -> float:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6
