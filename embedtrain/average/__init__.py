"""Named tensors, one at a time: read, averaged by any method, written."""

from embedtrain.average.merge import average, merge
from embedtrain.average.tensors import (
    TensorInfo,
    Tensors,
    open_tensors,
    split_by_bytes,
    tensors_in_memory,
    write_sharded,
    write_tensors,
)

__all__ = [
    "TensorInfo",
    "Tensors",
    "average",
    "merge",
    "open_tensors",
    "split_by_bytes",
    "tensors_in_memory",
    "write_sharded",
    "write_tensors",
]
