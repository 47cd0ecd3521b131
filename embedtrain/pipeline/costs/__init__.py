"""What a run will cost: time, memory and disk of each stage, estimated before it starts. No torch here."""

from embedtrain.pipeline.costs.estimate import Estimate, estimate_run
from embedtrain.pipeline.costs.table import print_costs, to_json

__all__ = ["Estimate", "estimate_run", "print_costs", "to_json"]
