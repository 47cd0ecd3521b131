"""What is stale, what runs next, what was made from what. No torch here: every stage is its own process."""

from embedtrain.pipeline.identity import outside_paths
from embedtrain.pipeline.launching import launch_command
from embedtrain.pipeline.plan import StagePlan, plan_run, print_plan
from embedtrain.pipeline.running import lock, run_stages, work

__all__ = [
    "StagePlan",
    "launch_command",
    "lock",
    "outside_paths",
    "plan_run",
    "print_plan",
    "run_stages",
    "work",
]
