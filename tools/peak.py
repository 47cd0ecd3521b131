"""Memory of this process, and of its GPU: what the tools that measure memory share."""

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def peak_bytes() -> int:
    """Most resident memory of this process so far, or since `start_peak`.

    Linux's VmHWM starts with the program; ru_maxrss may start with what the parent held.
    """
    if STATUS.exists():
        return status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def start_peak(device: str = "cpu") -> int:
    """Give free memory back and count the peak anew; what is held now.

    Where the system cannot count anew, the peak so far: a later one is then too high, never too low.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not STATUS.exists():
        return peak_bytes()
    give_back()
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return peak_bytes()
    return status_bytes("VmRSS")


def device_peak(device: str) -> int:
    """The peak of the memory that a step needs: the GPU's, or this process's."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_bytes()


def give_back() -> None:
    """Return freed memory to the system, where the C library knows how."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def status_bytes(name: str) -> int:
    """A line of /proc/self/status."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024
