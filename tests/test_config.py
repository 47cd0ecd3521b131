"""Reading runs and machines: values, overrides, descriptions, the starter, the docs, and how light it is."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from embedtrain.config.check import check_run, read_config
from embedtrain.config.describe import describe_run
from embedtrain.config.errors import UserError, nearest
from embedtrain.config.formula import objective_formula
from embedtrain.config.load import find_stage, load_machine, load_run, resolved
from embedtrain.config.reader import read_mapping, read_value
from embedtrain.config.schema import Machine, Run
from embedtrain.config.starter import starter
from embedtrain.data.counts import count_rows
from embedtrain.templates import validate_template

ROOT = Path(__file__).parent.parent
VALID = ROOT / "tests" / "broken" / "valid.yaml"
RUNS = sorted((ROOT / "configs").glob("*.yaml"))
MACHINES = sorted((ROOT / "configs" / "machines").glob("*.yaml"))


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("010", 10),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("[a, 1]", ["a", 1]),
        ("'2e-4'", "2e-4"),
    ],
)
def test_yaml_reads_as_it_looks(text: str, value: object) -> None:
    found = read_value(text)
    assert (found, type(found)) == (value, type(value))


def test_whole_numbers_become_numbers_so_that_hashes_agree(tmp_path: Path) -> None:
    written = VALID.read_text()
    (tmp_path / "a.yaml").write_text(written.replace("weight: 0.5", "weight: 1"))
    (tmp_path / "b.yaml").write_text(written.replace("weight: 0.5", "weight: 1.0"))
    first, second = (json.dumps(resolved(load_run(tmp_path / name))) for name in ("a.yaml", "b.yaml"))
    assert first == second


def test_places_are_lines_and_columns_of_keys(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\nb:\n  - {c: 2}\n")
    value, places = read_mapping(tmp_path / "a.yaml")
    assert value == {"a": 1, "b": [{"c": 2}]}
    assert places == {(): (0, 0), ("a",): (0, 0), ("b",): (1, 0), ("b", 0): (2, 4), ("b", 0, "c"): (2, 5)}


def test_resolved_run_reads_back_the_same(tmp_path: Path) -> None:
    run = load_run(VALID, ["stages.finetune.tuning=full"])
    assert Run.model_validate(resolved(run)) == run
    (tmp_path / "resolved.yaml").write_text(yaml.safe_dump(resolved(run)))
    assert load_run(tmp_path / "resolved.yaml") == run
    stages = resolved(run)["stages"]
    assert stages[1]["from"] == "pretrain"
    assert "lora" in stages[0]
    assert "lora" not in stages[3]


def test_values_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_run(VALID).seed = 8


def test_find_stage() -> None:
    run = load_run(VALID)
    assert find_stage(run, "soup").kind == "soup"
    with pytest.raises(UserError) as caught:
        find_stage(run, "sop")
    assert str(caught.value) == "run 'small' has no stage 'sop'; did you mean 'soup'?"


def test_machine_without_a_file_is_one_cpu_process() -> None:
    assert load_machine() == Machine(device="cpu", num_processes=1)


def test_a_gpu_run_checks_on_a_laptop_and_does_not_start_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(VALID.parent)
    rooms = {"count_rows": count_rows, "validate_template": validate_template}
    run, _ = read_config(VALID, ["precision=bfloat16"], **rooms)
    assert run.precision == "bfloat16"
    with pytest.raises(UserError, match="bfloat16 needs a GPU"):
        read_config(VALID, ["precision=bfloat16"], starts=True, **rooms)


def test_nearest_knows_other_tools_names() -> None:
    assert nearest("learning_rate", ["lr", "steps"]) == "did you mean 'lr'?"
    assert nearest("stpes", ["lr", "steps"]) == "did you mean 'steps'?"
    assert nearest("zzz", ["lr", "steps"]) == "known: lr, steps"
    assert nearest("zzz", []) == "there is none"


# --- overrides ----------------------------------------------------------------------------------------------


def test_overrides_reach_stages_by_name_and_lists_by_index() -> None:
    overrides = [
        "stages.finetune.lr=1e-5",
        "stages.pretrain.objective.terms[0].temperature=0.1",
        "stages[0].steps=3",
        "sources.notes.weight=2",
        "encoder.attention=causal",
        "stages.soup.from=[finetune, pretrain]",
        "stages.final.link=null",
        "text.query='Query={text}'",
    ]
    run = load_run(VALID, overrides)
    assert find_stage(run, "finetune").lr == 1e-5
    assert run.stages[0].objective.terms[0].temperature == 0.1
    assert run.stages[0].steps == 3
    assert run.sources["notes"].weight == 2
    assert run.encoder.attention == "causal"
    assert find_stage(run, "soup").from_ == ("finetune", "pretrain")
    assert find_stage(run, "final").link is None
    assert run.text.query == "Query={text}"


def test_the_last_override_wins() -> None:
    assert load_run(VALID, ["seed=1", "seed=2"]).seed == 2


# --- what is shown ------------------------------------------------------------------------------------------


def test_description_names_every_stage_and_source() -> None:
    text = describe_run(load_run(VALID))
    assert "\nfaq     67 %   rows.jsonl  64 + 256\n" in text
    assert (
        "\nfinetune   train     pretrain, negatives  10 steps of 4 rows, lr 0.0001 (linear), LoRA rank 16\n"
        in text
    )
    assert text.endswith("pretrain, finetune: " + objective_formula(load_run(VALID).stages[0].objective))


@pytest.mark.parametrize("rows", ["rows.jsonl", "a b.jsonl", "007.jsonl"])
def test_starter_passes_the_check(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(rows).write_text('{"query": "q", "positives": ["p"]}\n' * 64)
    Path("my.yaml").write_text(starter("my", rows, "owner/name"))
    run, _ = read_config("my.yaml", count_rows=count_rows, validate_template=validate_template)
    assert run.sources["mine"].rows == rows
    assert run.base.model == "owner/name"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_shipped_run_passes_the_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = load_run(path)
    assert check_run(run, path, count_rows=count_rows, validate_template=validate_template) == []


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.name)
def test_shipped_machine_loads(path: Path) -> None:
    assert load_machine(path).device in ("cpu", "cuda", "mps")


def test_configs_are_there() -> None:
    assert {"quickstart.yaml", "tiny.yaml", "mistral_7b.yaml"} <= {path.name for path in RUNS}
    assert {"cpu.yaml", "cpu_2.yaml", "gpu.yaml", "gpu_8.yaml", "mps.yaml"} <= {
        path.name for path in MACHINES
    }


def test_docs_are_what_the_classes_say() -> None:
    done = python("tools/config_docs.py", "--check")
    assert (done.returncode, done.stdout) == (0, "")


def test_every_key_is_explained() -> None:
    """A key without a meaning would be an empty cell."""
    empty = [line for line in (ROOT / "docs" / "config.md").read_text().splitlines() if line.endswith("|  |")]
    assert len(empty) == 0


# --- light --------------------------------------------------------------------------------------------------

PROBE = """
import sys
sys.argv = ["embedtrain", "check", "valid.yaml"]
{before}
from embedtrain.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "transformers", "peft", "accelerate", "sentence_transformers", "numpy", "pyarrow"}}
heavy &= sys.modules.keys()
sys.exit(f"imported {{sorted(heavy)}}" if heavy else 0)
"""


def test_check_imports_nothing_heavy() -> None:
    done = python("-c", PROBE.format(before=""), folder=VALID.parent)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_probe_can_fail() -> None:
    """With a module called torch in sys.modules the probe above must say so."""
    before = "import types; sys.modules['torch'] = types.ModuleType('torch')"
    done = python("-c", PROBE.format(before=before), folder=VALID.parent)
    assert (done.returncode, done.stderr) == (1, "imported ['torch']\n")


def test_check_answers_in_under_a_second() -> None:
    """Processor time, which other work on the machine does not change; the best of three."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "embedtrain", "check", VALID.name, folder=VALID.parent).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1.0


def python(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A Python process that finds the package, whatever its folder."""
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, check=False)
