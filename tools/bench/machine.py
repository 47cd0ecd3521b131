"""Where and with what a figure was measured: what every result file says."""

import datetime
import os
import platform
from typing import Any

from embedtrain.stages.run_report.machine import installed, processor

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "sentence-transformers",
    "FlagEmbedding",
    "tevatron",
)


def machine(threads: int) -> dict[str, Any]:
    """Cores, processor, versions of what is installed, and the date."""
    return {
        "cores": os.cpu_count(),
        "threads": threads,
        "processor": processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
