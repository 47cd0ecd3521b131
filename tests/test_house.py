"""The shape of the house: layers, no torch where none belongs, every command and link that we show."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shown_commands import shown_in_help, shown_on
from typer.main import get_command

from data_recipes.hub.build import hub_sets
from data_recipes.registry import local_recipes
from embedtrain.cli import app
from embedtrain.config.load import load_machine, load_run
from tools.light_rooms import ROOMS

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "transformers", "peft", "accelerate", "sentence_transformers", "mteb")
MACHINES = sorted((ROOT / "configs" / "machines").glob("*.yaml"))
RUNS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path not in MACHINES)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROBE = """
import importlib, pkgutil, sys
module = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
    importlib.import_module(found.name)
print(" ".join(name for name in sys.argv[2:] if name in sys.modules))
"""


def python(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run this Python with these words in a folder."""
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120)


# --- layers -------------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the import contracts of `pyproject.toml` on the package in `folder`."""
    return python(
        "-c", "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])", folder=folder
    )


def copy_house(folder: Path) -> Path:
    """The package and its contracts, to damage."""
    shutil.copytree(ROOT / "embedtrain", folder / "embedtrain", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_rooms_import_down_only() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("text.py", "import embedtrain.pipeline", "Rooms import down"),
        ("mining/negatives.py", "import embedtrain.train.step", "Rooms import down"),
        ("data/rows.py", "import torch", "Rooms that answer at once"),
        ("train/step.py", "import peft", "Only model/ knows peft"),
    ],
)
def test_a_planted_import_breaks_a_contract(tmp_path: Path, file: str, line: str, contract: str) -> None:
    damaged = copy_house(tmp_path) / "embedtrain" / file
    damaged.write_text(damaged.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert re.search(rf"{contract}.*\n?.*BROKEN", done.stdout), done.stdout


def heavy_imports(module: str) -> list[str]:
    """Which heavy packages are loaded once `module` and all below it are."""
    done = python("-c", PROBE, module, *HEAVY)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("room", ROOMS)
def test_no_torch_is_loaded(room: str) -> None:
    assert heavy_imports(f"embedtrain.{room}") == []


def test_importing_the_package_is_light() -> None:
    done = python("-c", "import sys, embedtrain; print({'torch', 'pydantic'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_a_training_starts_without_what_only_evaluation_needs() -> None:
    unused = "{'scipy.stats', 'sklearn', 'pandas', 'datasets', 'sentence_transformers', 'mteb'}"
    done = python("-c", f"import sys, embedtrain.stages.train; print({unused} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_the_probe_can_fail() -> None:
    assert heavy_imports("embedtrain.batch") == ["torch"]


# --- what is shipped ----------------------------------------------------------------------------------------


def test_configs_are_shipped() -> None:
    names = {path.name for path in RUNS}
    assert {"quickstart.yaml", "tiny.yaml", "mistral_7b.yaml"} <= names
    assert MACHINES


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_every_run_validates(path: Path) -> None:
    assert load_run(path).stages


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.name)
def test_every_machine_validates(path: Path) -> None:
    assert load_machine(path).num_processes >= 1


def test_nothing_is_too_long() -> None:
    done = python("tools/check_sizes.py")
    assert done.returncode == 0, done.stdout


def test_the_size_check_can_fail() -> None:
    offences = runpy.run_path(str(ROOT / "tools" / "check_sizes.py"))["offences"]
    long = "def f() -> None:\n" + "    pass\n" * 80
    assert offences(Path("a.py"), long) == ["a.py:1: function 'f' has 81 lines, at most 80"]
    assert offences(Path("a.py"), "\n" * 301) == ["a.py: 301 lines, at most 300"]
    assert offences(Path("a.py"), "def f() -> None:\n" + "    pass\n" * 79) == []


def tracked_files() -> list[Path]:
    """Every file in version control."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_path_of_one_machine() -> None:
    private = re.compile(rb"(?<![\w.])/(?:work|opt|root|home/\w+)/")
    suspects = [path for path in tracked_files() if path.suffix not in (".parquet", ".png")]
    assert len(suspects) > 50
    found = [str(path.relative_to(ROOT)) for path in suspects if private.search(path.read_bytes())]
    assert found == []


# --- what the pages say -------------------------------------------------------------------------------------


SHOWN = sorted(
    {one.text for page in PAGES for one in shown_on(page) if one.kind == "command"}
    | {one.text for one in shown_in_help()}
)


WRITTEN = {
    name
    for page in PAGES
    for name in re.findall(r'^```python title="(.+)"$', page.read_text(encoding="utf-8"), re.MULTILINE)
}
"""Programs that a page gives whole, for its reader to save."""


def parse_command(words: list[str]) -> None:
    """Parse a command line of embedtrain without running it; raises what click raises on a mistake."""
    group = get_command(app)
    context = group.make_context("embedtrain", [words[0]], resilient_parsing=True)
    name, command, rest = group.resolve_command(context, words)
    command.make_context(name, list(rest), parent=context)


def check_make(words: list[str]) -> None:
    """Every target named is in the Makefile."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check_command(line: str) -> None:
    """A shown command can be run: its program, its options and the shipped files that it names exist."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word) or line.startswith("make")]
    match words:
        case ["make", *rest]:
            check_make(rest)
        case ["embedtrain", *rest] | ["python", "-m", "embedtrain", *rest]:
            parse_command(rest)
        case ["python", "-m", "data_recipes", "build", name, *_]:
            assert name in {*local_recipes(), *hub_sets()}, f"no recipe {name}"
        case ["python", script, *_] if script.endswith(".py") and script not in WRITTEN:
            assert (ROOT / script).is_file(), f"{script} is not there"
    for word in words:
        if word.startswith(("configs/", "tools/")):
            assert (ROOT / word).exists(), f"{word} is not there"


@pytest.mark.parametrize("line", SHOWN)
def test_shown_commands_can_be_run(line: str) -> None:
    check_command(line)


def test_the_readme_shows_its_two_commands() -> None:
    shown = {one.text for one in shown_on(ROOT / "README.md")}
    assert {"make quickstart", "make test"} <= shown


@pytest.mark.parametrize(
    "line",
    ["make quikstart", "embedtrain runn a.yaml", "embedtrain run", "embedtrain plan a.yaml --sett b=1",
     "python tools/no_such_tool.py", "python -m data_recipes build no_such_set",
     "embedtrain check configs/no_such_run.yaml"],
)  # fmt: skip
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - click's own errors and assertions alike
        check_command(line)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: Path) -> list[str]:
    """Links of a page to files or headings that are not there."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One two\n[a](#one-two) [b](#three) [c](none.md) [d](https://example.org)\n")
    assert broken_links(page) == ["#three", "none.md"]
