"""What holds for every test: no hub, no telemetry, and the same threads everywhere."""

import os

# before transformers is imported by any test
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
