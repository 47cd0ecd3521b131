"""What public trainers' gathers make of the gradient: `python tools/gather_conventions.py --processes 1 2 4`.

Each convention of tools/conventions.py runs on real gloo processes under PyTorch's DistributedDataParallel,
which averages gradients. The true gradient is that of one process with the whole batch. Shown for each: the
norm of the gradient and the norm of its distance from the true one, both over the true norm.

`--write` puts the table into docs/gradients.md, `--check` compares the page with what is measured. Writes
JSON, prints the verdict last; exits 1 where embedtrain's gradient is further than 1e-12 from the true one, or
where the page says something else.

A all queries, G documents of a row, P features.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embedtrain.artifacts import write_json  # noqa: E402
from embedtrain.dist import average_gradients, current  # noqa: E402
from embedtrain.mixture import share  # noqa: E402
from embedtrain.show.tables import markdown_table, print_table  # noqa: E402
from tools.conventions import CONVENTIONS, Convention, Loss, Rows  # noqa: E402
from tools.launch import on_processes  # noqa: E402

PAGE = ROOT / "docs" / "gradients.md"
BEGIN, END = "<!-- written by tools/gather_conventions.py -->\n", "<!-- end -->\n"
EXACT = 1e-12
NUM_ROWS, DOCUMENTS, FEATURES = 8, 3, 24
UNEVEN = {1: (0, 8), 2: (0, 3, 8), 4: (0, 1, 2, 4, 8)}
"""Where each process's rows start, and the end."""


@dataclass(frozen=True)
class Measured:
    """A convention's gradient on `processes`: its length and its distance, both over the true length."""

    who: str
    computes: str
    processes: int
    ratio: float
    error: float
    cosine: float


def main() -> int:
    """Measure, show, compare or write; the exit status."""
    args = parse_arguments()
    measured = [m for world in args.processes for m in compare(world, on_processes(world, gradients_here))]
    write_json(args.out, [asdict(result) for result in measured])
    columns, rows = page_table(measured, sorted(args.processes))
    print_table("Gradient against the true one: length / distance, both over the true length", columns, rows)
    faults = wrong_ones(measured)
    if args.write:
        write_page(measured)
    if args.check:
        faults += differences(measured)
    for fault in faults:
        print(fault)
    print(f"gather_conventions: {'FAILED' if faults else 'passed'}, JSON in {args.out}")
    return 1 if faults else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="What public trainers' gathers make of the gradient")
    parser.add_argument("--processes", type=int, nargs="+", choices=sorted(UNEVEN), default=[1, 2, 4])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/gradients/gather_conventions.json")
    parser.add_argument("--write", action="store_true", help="put the table into docs/gradients.md")
    parser.add_argument(
        "--check", action="store_true", help="compare docs/gradients.md with what is measured"
    )
    return parser.parse_args()


def compare(world: int, gradients: list[Tensor]) -> list[Measured]:
    """What every convention gave on `world` processes, against the truth."""
    results = []
    for convention, found in zip(CONVENTIONS, gradients, strict=True):
        true = gradient(make_encoder(), make_rows(), convention.truth)
        error = float((found - true).norm() / true.norm())
        cosine = float(F.cosine_similarity(found, true, dim=0))
        ratio = float(found.norm() / true.norm())
        results.append(Measured(convention.who, convention.computes, world, ratio, error, cosine))
    return results


def gradients_here() -> list[Tensor]:
    """Each convention's gradient after averaging; run on every process."""
    return [gradient_here(convention) for convention in CONVENTIONS]


def gradient_here(convention: Convention) -> Tensor:
    """One convention's gradient after averaging: DistributedDataParallel's, or embedtrain's own."""
    here, encoder = current(), make_encoder()
    edges = UNEVEN[here.world]
    even = share(range(NUM_ROWS), here.rank, here.world)
    part = slice(*edges[here.rank : here.rank + 2]) if convention.uneven else even
    if not convention.ours:
        return gradient(
            DistributedDataParallel(encoder), make_rows().part(part.start, part.stop), convention.loss
        )
    gradient(encoder, make_rows().part(part.start, part.stop), convention.loss)
    average_gradients(encoder.parameters())
    return flat_gradient(encoder)


def make_rows() -> Rows:
    """The batch of every measurement."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    documents_AGP = normal(NUM_ROWS, DOCUMENTS, FEATURES)
    queries_AP = documents_AGP[:, 0] + normal(NUM_ROWS, FEATURES)
    return Rows(queries_AP, documents_AGP, normal(NUM_ROWS, DOCUMENTS).softmax(dim=1), 0)


def make_encoder() -> nn.Module:
    """A small encoder, the same on every process."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.Tanh(), nn.Linear(32, 16)).double()


def gradient(encoder: nn.Module, rows: Rows, loss: Loss) -> Tensor:
    """Encode both sides in one forward pass, as DistributedDataParallel wants it, and differentiate."""
    features = torch.cat([rows.queries_BP, rows.documents_BGP.flatten(0, 1)])
    vectors = F.normalize(encoder(features), dim=-1)
    loss(rows, *vectors.tensor_split([len(rows.queries_BP)])).backward()  # type: ignore[no-untyped-call]
    return flat_gradient(encoder)


def flat_gradient(encoder: nn.Module) -> Tensor:
    """All parameters' gradients as one vector."""
    return torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])


def cell(result: Measured) -> str:
    """Length and distance as the page shows them."""
    return f"{result.ratio:.3f} / {'0' if result.error < EXACT else f'{result.error:.3f}'}"


def direction(result: Measured) -> str:
    """In words."""
    if result.error < EXACT:
        return "exact"
    return "too long or short" if result.cosine > 1 - EXACT else "another direction"


def wrong_ones(measured: list[Measured]) -> list[str]:
    """What embedtrain gets wrong."""
    ours = {convention.who for convention in CONVENTIONS if convention.ours}
    return [
        f"{result.who}: relative error {result.error:.1e} on {result.processes} processes, at most {EXACT}"
        for result in measured
        if result.who in ours and not result.error < EXACT
    ]


def page_table(measured: list[Measured], worlds: list[int]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: one row a convention, one column a number of processes."""
    rows = []
    for convention in CONVENTIONS:
        found = {
            r.processes: r for r in measured if (r.who, r.computes) == (convention.who, convention.computes)
        }
        cells = [cell(found[world]) for world in worlds]
        rows.append([convention.who, convention.computes, *cells, direction(found[worlds[-1]])])
    return ["who", "what a process computes", *map(column, worlds), "so it is"], rows


def column(world: int) -> str:
    """Header of the column of so many processes."""
    return f"{world} processes" if world > 1 else "1 process"


def write_page(measured: list[Measured]) -> None:
    """Put the table of all measured numbers above 1 between the page's marks."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    table = markdown_table(*page_table(measured, sorted({r.processes for r in measured} - {1})))
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", "utf-8")


def differences(measured: list[Measured]) -> list[str]:
    """Cells of the page, for the measured numbers of processes, that say something else."""
    table = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].strip()
    header, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    shown = {(line[0], line[1]): dict(zip(header, line, strict=True)) for line in lines}
    faults = []
    for result in measured:
        line = shown.get((result.who, result.computes), {})
        expected = {column(result.processes): cell(result), "so it is": direction(result)}
        faults += [
            f"{PAGE.name}: '{result.who}' shows {name}: {line.get(name)!r}, measured {value!r}"
            for name, value in expected.items()
            if result.processes > 1 and line.get(name) != value
        ]
    return faults


if __name__ == "__main__":
    sys.exit(main())
