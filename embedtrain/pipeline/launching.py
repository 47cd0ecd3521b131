"""How a stage's processes are started, on one machine or on several that share their files."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from embedtrain.config.errors import UserError
from embedtrain.config.schema import Machine
from embedtrain.pipeline.plan import StagePlan

PARALLEL = ("train", "distil", "mine", "score", "evaluate")
"""Stages that share their work between the machine's processes."""
PORT = 29500


@dataclass(frozen=True, slots=True)
class Node:
    """Which of several machines this is, and where the processes of the first one listen."""

    rank: int
    address: str
    port: int


def this_node(machine: Machine, environment: Mapping[str, str] = os.environ) -> Node | None:
    """This machine among those of the machine file, as the environment says; None where there is one.

    NODE_RANK or, under SLURM, SLURM_NODEID; MASTER_ADDR and MASTER_PORT of the first.
    """
    if machine.num_nodes == 1:
        return None
    asked = f"the machine file says num_nodes: {machine.num_nodes}"
    rank = environment.get("NODE_RANK") or environment.get("SLURM_NODEID")
    address = environment.get("MASTER_ADDR")
    if rank is None or address is None:
        absent = "MASTER_ADDR" if rank is not None else "NODE_RANK (or SLURM_NODEID)"
        raise UserError(
            f"{asked}, but {absent} is not set; start the same command on every node, see docs/scaling.md"
        )
    if not rank.isdecimal() or int(rank) >= machine.num_nodes:
        raise UserError(f"{asked}, but this node's rank is {rank}; expected 0 to {machine.num_nodes - 1}")
    started = environment.get("SLURM_NNODES", str(machine.num_nodes))
    if started != str(machine.num_nodes):
        raise UserError(f"{asked}, but SLURM_NNODES is {started}")
    return Node(int(rank), address, int(environment.get("MASTER_PORT", PORT)))


def launch_command(plan: StagePlan, machine: Machine, node: Node | None = None) -> list[str]:
    """The process that works on a stage: plain, torch.distributed.run (CPU) or accelerate launch (GPUs)."""
    module = ["-m", "embedtrain", "stage", str(plan.partial)]
    if plan.stage.kind not in PARALLEL or machine.num_processes == 1:
        return [sys.executable, *module]
    launcher = accelerate_launch if machine.device == "cuda" else torch_run
    return [sys.executable, "-m", *launcher(machine, node), *module]


def accelerate_launch(machine: Machine, node: Node | None) -> list[str]:
    """One process for each GPU."""
    config = machine.accelerate_config
    command = ["accelerate.commands.launch", *(["--config_file", config] if config else ["--multi_gpu"])]
    command += ["--num_processes", str(machine.num_processes)]
    if node is None:
        return command
    command += ["--num_machines", str(machine.num_nodes), "--machine_rank", str(node.rank), "--same_network"]
    return [*command, "--main_process_ip", node.address, "--main_process_port", str(node.port)]


def torch_run(machine: Machine, node: Node | None) -> list[str]:
    """Processes on CPUs."""
    here = ["--nproc_per_node", str(machine.num_processes // machine.num_nodes)]
    if node is None:
        return ["torch.distributed.run", "--standalone", *here]
    which = ["--nnodes", str(machine.num_nodes), "--node_rank", str(node.rank)]
    where = ["--master_addr", node.address, "--master_port", str(node.port)]
    return ["torch.distributed.run", *which, *where, *here]
