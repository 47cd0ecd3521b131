"""Which rows of which source form each global batch: a pure function of keys, sizes, weights and a seed."""

from embedtrain.mixture.keys import RowKeys, row_keys
from embedtrain.mixture.plan import SEVERAL, Part, Plan, PlannedBatch, share
from embedtrain.mixture.shares import Share, batch_sizes, num_steps, plan_shares

__all__ = [
    "SEVERAL",
    "Part",
    "Plan",
    "PlannedBatch",
    "RowKeys",
    "Share",
    "batch_sizes",
    "num_steps",
    "plan_shares",
    "row_keys",
    "share",
]
