"""What holds for every test: no hub, no telemetry, and one thread, so that equal bits stay equal."""

import os

# before transformers is imported by any test
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

# tiny products gain nothing from a second thread; processes that tests start choose for themselves
torch.set_num_threads(1)
