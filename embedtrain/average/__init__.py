"""Named tensors, a block of rows at a time: read, averaged by any method, written."""

from embedtrain.average.files import (
    open_tensors,
    split_by_bytes,
    weight_files,
    write_sharded,
    write_tensors,
)
from embedtrain.average.merge import average, merge
from embedtrain.average.tensors import TensorInfo, Tensors, tensors_in_memory

__all__ = [
    "TensorInfo",
    "Tensors",
    "average",
    "merge",
    "open_tensors",
    "split_by_bytes",
    "tensors_in_memory",
    "weight_files",
    "write_sharded",
    "write_tensors",
]
