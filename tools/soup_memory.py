"""Memory that a soup of two checkpoints needs: `python tools/soup_memory.py`.

Makes a base, two checkpoints of about 1 GB and two adapters on the base: a Llama with random weights drawn
from a seed, whose table of tokens alone has over 300 MB. Each method then merges the two checkpoints (and
`mean` the two adapters, too) in a process of its own and writes the whole result.

Measured is anonymous memory (RssAnon): files are mapped, and the pages of a mapped file can be dropped at any
time. The process imports torch, says so, and is sampled from then on; a figure is the highest sample less the
first, so all other imports count. Writes JSON, prints the verdict last; exits 1 where a figure is above the
bound of 300 MB.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MOST_BYTES = 300 * 10**6
TABLE_BYTES = 300 * 10**6
SAMPLE_SECONDS = 0.002
READY = "ready"
METHODS: dict[str, dict[str, Any]] = {
    "mean": {},
    "slerp": {},
    "task_arithmetic": {"scale": 0.5},
    "ties": {"density": 0.2},
    "dare": {"density": 0.5, "elect_signs": True},
}
SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 640,
    "intermediate_size": 2_560,
    "num_hidden_layers": 28,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "max_position_embeddings": 512,
}
RANK = 16


def main() -> int:
    """Make the models, measure each method, judge; the exit status."""
    args = parse_arguments()
    if args.merge:
        return merge_here(args.merge, args.folder)
    folder = Path(tempfile.mkdtemp(prefix="soup_memory_", dir=args.folder))
    try:
        sizes = make_models(folder, json.loads(args.shape))
        figures = [measure(name, folder) for name in args.methods]
    finally:
        shutil.rmtree(folder)
    return report(args.out, sizes, figures)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Memory that a soup of two checkpoints needs")
    known = [*METHODS, "mean_of_adapters"]
    parser.add_argument("--methods", nargs="+", choices=known, default=known)
    parser.add_argument("--folder", type=Path, help="where the models are made for a while: about 4 GB")
    parser.add_argument("--shape", default=json.dumps(SHAPE), help="the model's config, JSON")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/soup/memory.json")
    parser.add_argument("--merge", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_models(folder: Path, shape: Mapping[str, int]) -> dict[str, int]:
    """`base`, the checkpoints `one` and `two`, the adapters `three` and `four`; sizes in bytes."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig

    from embedtrain.model.checkpoint import Saved, write_spec
    from embedtrain.model.encoder import EncoderSpec
    from embedtrain.model.ingredients.names import skeleton_of

    config = LlamaConfig(**shape, architectures=["LlamaModel"], is_causal=False)
    shapes = {name: tuple(p.shape) for name, p in skeleton_of(config).named_parameters()}
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    spec = EncoderSpec(base=str(folder / "base"))
    for seed, name in enumerate(("base", "one", "two")):
        write_random(folder / name, shapes, seed)
        write_spec(folder / name, Saved(spec, None, None, "float32"), tokenizer, config)
    (folder / "base" / "encoder.json").unlink()
    make_adapters(folder, shapes, spec, tokenizer, config)
    table = 4 * shape["vocab_size"] * shape["hidden_size"]
    return {"checkpoint_bytes": (folder / "one" / "model.safetensors").stat().st_size, "table_bytes": table}


def write_random(folder: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
    """A file of float32 weights near those of every other seed."""
    import torch

    from embedtrain.average import TensorInfo, write_tensors
    from embedtrain.average.tensors import tensors_by_rows

    info = {name: TensorInfo(torch.float32, shape) for name, shape in shapes.items()}
    places = {name: place for place, name in enumerate(shapes)}

    def read_rows(name: str, start: int, stop: int) -> torch.Tensor:
        draws = [torch.Generator().manual_seed(hash((places[name], start, s))) for s in (0, seed)]
        rows = (stop - start, *shapes[name][1:])
        shared, own = (torch.randn(rows, generator=draw) for draw in draws)
        return 0.02 * shared + 0.002 * seed * own

    folder.mkdir()
    write_tensors(folder / "model.safetensors", tensors_by_rows(str(folder), info, read_rows))


def make_adapters(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], spec: Any, tokenizer: Any, config: Any
) -> None:
    """Two checkpoints that hold adapters alone."""
    from embedtrain.average import open_tensors
    from embedtrain.config.tuning import Lora
    from embedtrain.model.checkpoint import Saved, write_spec
    from embedtrain.model.ingredients.opening import hash_base

    with ExitStack() as stack:
        digest = hash_base(open_tensors(folder / "base", stack))
    layers = {name: shape for name, shape in shapes.items() if "_proj" in name}
    factors = {}
    for name, (rows, columns) in layers.items():
        factors[name.replace(".weight", ".lora_A.weight")] = (RANK, columns)
        factors[name.replace(".weight", ".lora_B.weight")] = (rows, RANK)
    for seed, name in enumerate(("three", "four"), start=3):
        write_random(folder / name, factors, seed)
        (folder / name / "model.safetensors").rename(folder / name / "adapter.safetensors")
        lora = Lora(rank=RANK, alpha=2 * RANK)
        write_spec(folder / name, Saved(spec, lora, digest, "float32"), tokenizer, config)


def merge_here(name: str, folder: Path) -> int:
    """One soup, in this process: once torch is there, wait to be sampled."""
    import torch

    torch.set_num_threads(1)
    print(READY, flush=True)
    sys.stdin.readline()
    from pydantic import TypeAdapter

    from embedtrain.average import merge
    from embedtrain.config.soups import SoupMethod
    from embedtrain.model.ingredients import check_alike, open_ingredient, write_merged

    adapters = name == "mean_of_adapters"
    kind = "mean" if adapters else name
    method: Any = TypeAdapter(SoupMethod).validate_python({"kind": kind, **METHODS[kind]})
    names = ("three", "four") if adapters else ("one", "two")
    with ExitStack() as stack:
        parts = [open_ingredient(folder / name, stack) for name in names]
        check_alike(parts)
        base = open_ingredient(folder / "three", stack).base if "scale" in method.model_dump() else None
        soup = merge([part.tensors for part in parts], method, base=base)
        write_merged(soup, parts[0], folder / "soup", {"method": method.model_dump()})
    return 0


def measure(name: str, folder: Path) -> dict[str, Any]:
    """The peak of one soup in a process of its own, above what it had after importing torch."""
    command = [sys.executable, __file__, "--merge", name, "--folder", str(folder)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
        assert process.stdin
        assert process.stdout
        wait_until_ready(process.stdout)
        first, start = anonymous_bytes(process.pid), time.monotonic()
        process.stdin.write("go\n")
        process.stdin.flush()
        peak = max([first, *samples(process)])
        if process.wait():
            said.seek(0)
            raise SystemExit(f"soup_memory: {name} failed\n{said.read()}")
    written = (folder / "soup" / "model.safetensors").stat().st_size
    shutil.rmtree(folder / "soup")
    seconds = round(time.monotonic() - start, 1)
    figure = {"method": name, "peak_bytes": peak - first, "start_bytes": first}
    return figure | {"written_bytes": written, "seconds": seconds}


def wait_until_ready(stream: IO[str]) -> None:
    """Read what the process says until it is ready."""
    for line in stream:
        if line.strip() == READY:
            return
    raise SystemExit("soup_memory: a process ended before it was ready")


def samples(process: "subprocess.Popen[str]") -> Iterator[int]:
    """Anonymous memory, every few milliseconds until the process has ended."""
    while process.poll() is None:
        yield anonymous_bytes(process.pid)
        time.sleep(SAMPLE_SECONDS)


def anonymous_bytes(pid: int) -> int:
    """Bytes of a process that are of no file; 0 where it is gone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = [line for line in lines if line.startswith("RssAnon")]
    return 1024 * int(found[0].split()[1]) if found else 0


def report(out: Path, sizes: Mapping[str, int], figures: list[dict[str, Any]]) -> int:
    """Print the table and the verdict, and write the JSON; the exit status."""
    import torch

    from embedtrain.artifacts import write_json
    from embedtrain.show.tables import print_table

    faults = [
        f"{f['method']}: {f['peak_bytes'] / 1e6:.0f} MB"
        for f in figures
        if not 0 < f["peak_bytes"] <= MOST_BYTES
    ]
    if sizes["table_bytes"] < TABLE_BYTES:
        faults.append(f"the table of tokens has {sizes['table_bytes'] / 1e6:.0f} MB, too few to prove it")
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    write_json(out, {**sizes, "figures": figures, "versions": versions, "passed": not faults})
    rows = [[f["method"], f["peak_bytes"] / 1e6, f["written_bytes"] / 1e6, f["seconds"]] for f in figures]
    print_table(None, ["method", "peak above torch, MB", "written, MB", "seconds"], rows)
    bound = f"at most {MOST_BYTES / 1e6:.0f} MB of anonymous memory above an interpreter with torch"
    print(f"FAILED: {'; '.join(faults)} ({bound})" if faults else f"passed: {bound}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
