"""embedtrain turns a decoder LLM into a text-embedding model.

from embedtrain import Encoder, load_run, run

folder = run(load_run("configs/tiny.yaml"))
encoder = Encoder.open(folder / "model")
vectors = encoder.encode(["how do I list files?"], side="query")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedtrain.api import Encoder, load_run, run

__version__ = "0.1.0"
__all__ = ["Encoder", "__version__", "load_run", "run"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import embedtrain` stays light."""
    if name not in ("Encoder", "load_run", "run"):
        raise AttributeError(f"module 'embedtrain' has no attribute '{name}'")
    import embedtrain.api

    return getattr(embedtrain.api, name)
