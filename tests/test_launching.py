"""How processes are started on one machine and on several, and the machine files that say so."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from contrastive import ragged_rows
from exports import PLAIN
from tiny_models import save_tiny

from embedtrain.artifacts import is_done, read_json, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage, load_machine
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import write_rows
from embedtrain.pipeline.launching import Node, accelerate_launch, this_node, torch_run
from embedtrain.pipeline.plan import StagePlan
from embedtrain.pipeline.running import follow, telling
from embedtrain.places import ENDED, Patience, Places, here
from embedtrain.stops import RESUME_CODE
from embedtrain.train.log import read_curve

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
MACHINES = sorted((ROOT / "configs/machines").glob("*.yaml"))
RUN = {"cpu.yaml", "cpu_2.yaml"}
"""Machine files that were run; all others say that they were not."""
TWO = Machine(num_processes=4, num_nodes=2)
ADDRESS = {"MASTER_ADDR": "10.0.0.1"}


def test_one_machine_is_no_node() -> None:
    assert this_node(Machine(), {"SLURM_NODEID": "1"}) is None


def test_a_node_is_told_by_the_environment() -> None:
    assert this_node(TWO, ADDRESS | {"NODE_RANK": "1"}) == Node(1, "10.0.0.1", 29500)
    slurm = {"SLURM_NODEID": "0", "SLURM_NNODES": "2", "MASTER_PORT": "4000"}
    assert this_node(TWO, ADDRESS | slurm) == Node(0, "10.0.0.1", 4000)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            ADDRESS,
            "but NODE_RANK (or SLURM_NODEID) is not set; start the same command on every node, "
            "see docs/scaling.md",
        ),
        (
            {"NODE_RANK": "0"},
            "but MASTER_ADDR is not set; start the same command on every node, see docs/scaling.md",
        ),
        (ADDRESS | {"NODE_RANK": "2"}, "but this node's rank is 2; expected 0 to 1"),
        (ADDRESS | {"NODE_RANK": "one"}, "but this node's rank is one; expected 0 to 1"),
        (ADDRESS | {"SLURM_NODEID": "0", "SLURM_NNODES": "3"}, "but SLURM_NNODES is 3"),
    ],
)
def test_a_node_that_cannot_be_one(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        this_node(TWO, environment)
    assert str(refused.value) == f"the machine file says num_nodes: 2, {message}"


def test_processes_are_shared_evenly() -> None:
    with pytest.raises(UserError) as refused:
        load_machine(None, ["num_processes=3", "num_nodes=2"])
    assert "num_processes is 3, of all nodes together; expected a multiple of num_nodes, 2" in str(
        refused.value
    )


def test_commands_of_a_node() -> None:
    node = Node(1, "10.0.0.1", 4000)
    assert torch_run(TWO, node) == [
        *("torch.distributed.run", "--nnodes", "2", "--node_rank", "1"),
        *("--master_addr", "10.0.0.1", "--master_port", "4000", "--nproc_per_node", "2"),
    ]
    gpus = TWO.model_copy(update={"device": "cuda"})
    assert accelerate_launch(gpus, node) == [
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "4"),
        *("--num_machines", "2", "--machine_rank", "1", "--same_network"),
        *("--main_process_ip", "10.0.0.1", "--main_process_port", "4000"),
    ]
    alone = Machine(device="cuda", num_processes=8, accelerate_config="own.yaml")
    assert accelerate_launch(alone, None) == [
        *("accelerate.commands.launch", "--config_file", "own.yaml", "--num_processes", "8")
    ]


def test_accelerate_knows_the_options() -> None:
    from accelerate.commands.launch import launch_command_parser

    node = Node(1, "10.0.0.1", 4000)
    words = [*accelerate_launch(TWO.model_copy(update={"device": "cuda"}), node)[1:], "-m", "embedtrain"]
    asked = launch_command_parser().parse_args(words)
    assert (asked.num_machines, asked.machine_rank, asked.main_process_port) == (2, 1, 4000)
    assert asked.module
    assert asked.training_script == "embedtrain"


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.name)
def test_what_was_never_run_says_so(path: Path) -> None:
    """In its first line, and in the table of docs/scaling.md."""
    was_run = path.name in RUN
    assert path.read_text().startswith("# not run\n") != was_run
    lines = re.findall(rf"^\| `{path.name}` .*$", (ROOT / "docs/scaling.md").read_text(), re.MULTILINE)
    assert len(lines) == 1
    assert ("not run" in lines[0]) != was_run


# --- two nodes, which are two commands on this machine ------------------------------------------------------


def write_run(folder: Path) -> Path:
    """Stages that are shared, and an export between them, which the first node does alone."""
    save_tiny("llama", folder / "base", seed=3)
    write_rows(folder / "faq.parquet", ragged_rows(20))
    stage = {
        "kind": "train",
        "batch_size": 4,
        "steps": 2,
        "lr": 1e-3,
        "lora": {"rank": 2, "alpha": 4},
    }
    stage |= {"objective": {"terms": [{"kind": "infonce"}]}}
    stages = [
        stage | {"name": "first"},
        {"name": "model", "kind": "export", "from": "first"},
        {"name": "mined", "kind": "mine", "from": "first", "top_k": 5},
        {"name": "scored", "kind": "score", "candidates": "mined", "teachers": [{"kind": "bm25"}]},
        stage | {"name": "second", "from": "first"},
    ]
    run = {
        "name": "r",
        "folder": str(folder),
        "base": {"model": str(folder / "base")},
        "text": PLAIN.model_dump(),
        "sources": {"faq": {"rows": str(folder / "faq.parquet")}},
        "stages": stages,
    }
    machine = {"num_processes": 2, "num_nodes": 2, "threads": 1, "keep_tokens": 0}
    write_json(folder / "machine.yaml", machine)
    return write_json(folder / "run.yaml", run)


def start_nodes(folder: Path, *words: str) -> list[subprocess.Popen[str]]:
    """The commands of both nodes, by rank; the second one begins first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    command = [sys.executable, "-m", "embedtrain", "run", str(write_run(folder)), *words]
    command += ["--machine", str(folder / "machine.yaml")]
    followed, first = (
        subprocess.Popen(
            command,
            env=os.environ | shared | {"NODE_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("1", "0")
    )
    return [first, followed]


def ended(nodes: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Exit codes and what was said, of all nodes."""
    told = [node.communicate(timeout=1200)[0] for node in nodes]
    return [node.returncode for node in nodes], told


@pytest.mark.parametrize(
    ("last", "told"),
    [(ENDED, "process 0 has ended"), ("export", "process 0 gives no sign of life for 2 s")],
    ids=["ended", "lost"],
)
def test_who_follows_ends_with_the_first_node(tmp_path: Path, last: str, told: str) -> None:
    """While the first one does alone what is not shared; an earlier start's end does not count."""
    machine, node = Machine(num_processes=2, num_nodes=2, timeout_seconds=2), Node(1, "", 0)
    first = Places(tmp_path, 0, 2)
    first.at(ENDED)
    stage = find_stage(Run.model_validate(read_json(write_run(tmp_path))), "model")
    plan = StagePlan(stage, {}, tmp_path / "model-1", "todo", "", {})
    with telling(tmp_path, machine, node):
        leader = Patience(here_now(), [0], needed=True)
        starts = [threading.Timer(0.2, first.at, ["start"]), threading.Timer(1.2, first.at, [last])]
        for one in starts:
            one.start()
        with pytest.raises(UserError, match=f"node 1 follows node 0, whose {told}"):
            follow(plan, machine, node, leader)
    for one in starts:
        one.join()
    first.close()


def here_now() -> Places:
    """This process's place."""
    own = here()
    assert own is not None
    return own


@pytest.mark.slow
def test_two_nodes_walk_one_run(tmp_path: Path) -> None:
    """The second one begins first, waits for the first, works with it and ends when all is done."""
    codes, told = ended(start_nodes(tmp_path))
    assert codes == [0, 0], "\n".join(told)
    assert re.findall(r"▶ [^,]*", told[0]) == [
        "▶ first (train)",
        "▶ model (export)",
        "▶ mined (mine)",
        "▶ scored (score)",
        "▶ second (train)",
    ]
    shared = ["first (train)", "mined (mine)", "scored (score)", "second (train)"]
    assert re.findall(r"▶ (.*), node 1", told[1]) == shared
    for name in ("first", "second"):
        [folder] = (tmp_path / "r").glob(f"{name}-*")
        assert is_done(folder)
        assert len(read_curve(folder / "curve.jsonl")) == 2
        assert read_json(folder / "stage.json")["machine"]["num_nodes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_node_that_is_asked_to_stop_stops_both(tmp_path: Path, asked: int) -> None:
    """A signal to one of them: both end with a checkpoint and the code that says resume."""
    nodes = start_nodes(tmp_path, "--set", "stages.first.steps=100000")
    curves = until(lambda: list((tmp_path / "r").glob("first-*.partial/curve.jsonl")), nodes)
    until(lambda: len(curves[0].read_text().splitlines()) > 2, nodes)
    nodes[asked].send_signal(signal.SIGTERM)
    codes, told = ended(nodes)
    assert codes == [RESUME_CODE, RESUME_CODE], "\n".join(told)
    for said in told:
        assert said.splitlines()[-1].endswith("stopped; the same command goes on from where it was"), said
        assert "Traceback" not in said
    assert list(curves[0].parent.glob("checkpoints/step-*/done.json"))


def until(found: Callable[[], T], nodes: Sequence[subprocess.Popen[str]]) -> T:
    """What is true at last, while both nodes are at work."""
    while not (value := found()):
        assert [node.poll() for node in nodes] == [None, None], ended(nodes)
        time.sleep(0.05)
    return value
