"""What holds for every test: no hub, no telemetry, one thread (equal bits stay equal), an own cache."""

import os
from collections.abc import Iterator

import pytest

# before transformers is imported by any test
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from embedtrain.artifacts import cache_folder

# tiny products gain nothing from a second thread; processes that tests start choose for themselves
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Rows and tokens of tests are kept apart and thrown away; models take long to fetch and are shared."""
    models, cache = cache_folder("models"), tmp_path_factory.mktemp("cache")
    models.mkdir(parents=True, exist_ok=True)
    (cache / "models").symlink_to(models.resolve(), target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDTRAIN_CACHE", str(cache))
        yield
