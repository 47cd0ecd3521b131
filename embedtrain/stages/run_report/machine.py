"""What a stage ran on and how much memory it took, for its done.json: told by the process itself."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from embedtrain.train.measures import peak_resident

PACKAGES = ("torch", "transformers", "peft", "accelerate", "sentence-transformers")


def ran_on() -> dict[str, object]:
    """`machine`: processor, cores, GPUs, peak memory of this process. `versions`: of what is installed.

    Of several processes, each knows its own memory only. GPUs are named where torch has used one.
    """
    machine: dict[str, object] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "peak_bytes": peak_resident(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        machine["gpus"] = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        machine["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    found = {name: text for name in PACKAGES if (text := installed(name))}
    return {"machine": machine, "versions": {"python": platform.python_version(), **found}}


def processor() -> str:
    """Its name, as Linux tells it; elsewhere what the platform knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
