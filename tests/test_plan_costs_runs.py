"""What a plan says a run will cost: every shipped config, texts and models, and what cannot be known."""

import json
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from embedtrain.artifacts import mark_done
from embedtrain.cli import main
from embedtrain.config.costs import NF4
from embedtrain.config.load import load_machine, load_run
from embedtrain.config.schema import Machine, Run
from embedtrain.config.shapes import known_shape
from embedtrain.pipeline import plan_run, print_plan
from embedtrain.pipeline.costs import Estimate, estimate_run, print_costs, to_json
from embedtrain.pipeline.costs.models import find_shape, model_of
from embedtrain.pipeline.costs.setting import Setting
from embedtrain.pipeline.costs.texts import count_texts, source_texts

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ROOT / "configs" / "machines"
RUNS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent != MACHINES)
CONFIG = """
name: small
folder: {folder}
base: {{model: {model}}}
text: {{query: "{{text}}", document: "{{text}}", max_query_tokens: 8, max_document_tokens: 16}}
sources:
  one: {{rows: {folder}/one.jsonl}}
stages:
  - name: first
    kind: train
    objective: {{terms: [{{kind: infonce, temperature: 0.05}}]}}
    batch_size: 4
    steps: 3
    lr: 1e-3
  - {{name: mined, kind: mine, from: first, top_k: 20}}
  - {{name: chosen, kind: select, candidates: mined}}
  - {{name: out, kind: export, from: first}}
"""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a plan opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)


def small_run(folder: Path, model: str = "HuggingFaceTB/SmolLM2-135M") -> Path:
    """A run of four stages on twelve rows: queries of 20 bytes, one positive of 100 each."""
    rows = [{"query": "q" * 20, "positives": ["p" * 100]} for _ in range(12)]
    (folder / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(CONFIG.format(folder=folder, model=model))
    return folder / "run.yaml"


def estimate(path: Path, machine: Machine | None = None) -> tuple[Run, Estimate]:
    """The estimate of a run file on a machine."""
    run = load_run(path)
    return run, estimate_run(run, machine or Machine(), plan_run(run))


def machine_of(run: Run) -> Machine:
    """The machine that a run is meant for: GPUs for bfloat16, a CPU for the rest."""
    return load_machine(MACHINES / ("gpu_8.yaml" if run.precision == "bfloat16" else "cpu.yaml"))


# --- texts --------------------------------------------------------------------------------------------------


def test_texts_are_counted_and_cut(tmp_path: Path) -> None:
    run = load_run(small_run(tmp_path))
    texts = source_texts(run.text, run.sources["one"], {})
    assert texts is not None
    assert (texts.query, texts.document, texts.positives, texts.negatives) == (6, 16, 1, 0)
    longer = source_texts(run.text, run.sources["one"], {"max_document_tokens": 64})
    assert longer is not None
    assert longer.document == 26


def test_shipped_rows_and_test_data_are_sampled() -> None:
    run = load_run(ROOT / "configs" / "quickstart.yaml")
    for source in run.sources.values():
        texts = source_texts(run.text, source, {})
        assert texts is not None
        assert 5 < texts.query < 32
        assert 5 < texts.document <= 40
    pile = count_texts(["rows/tests/faq"], 256)
    assert pile is not None
    assert pile.count == pytest.approx(949, rel=0.05)


# --- models -------------------------------------------------------------------------------------------------


def write_config(folder: Path, **more: object) -> None:
    """A small model's config.json."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    folder.mkdir(parents=True, exist_ok=True)
    config = sizes | {"vocab_size": 100, "max_position_embeddings": 64} | more
    (folder / "config.json").write_text(json.dumps(config))


def test_a_local_folder_tells_its_shape(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="qwen3", num_key_value_heads=2, head_dim=16)
    shape = find_shape(str(tmp_path))
    assert shape is not None
    assert (shape.family, shape.hidden, shape.layers, shape.key_width) == ("qwen3", 32, 3, 32)


def test_a_fetched_hub_model_tells_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    write_config(tmp_path / "models--someone--small-bert" / "snapshots" / "abc", model_type="bert")
    assert find_shape("someone/small-bert") is not None
    assert find_shape("someone/other-bert") is None


def test_stages_hand_their_models_on() -> None:
    run = load_run(ROOT / "configs" / "quickstart.yaml")
    pretrained, soup = model_of(run, "pretrain"), model_of(run, "soup")
    shape = known_shape(run.base.model)
    assert shape is not None
    assert pretrained.shape == soup.shape
    assert pretrained.shape is not None
    assert pretrained.shape.parameters == shape.cut(6).parameters
    assert (pretrained.folded, soup.folded) == (False, True)
    assert pretrained.adapters > 0 == soup.adapters


# --- plans --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_every_shipped_config_has_a_plan(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load_run(path, [f"folder={tmp_path}"])
    plans = plan_run(run)
    found = estimate_run(run, machine_of(run), plans)
    print_plan(run, plans)
    print_costs(found)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert f"{len(plans)} left" in printed
    assert "estimates, within a factor of two:" in printed
    json.dumps(to_json(run, plans, found), allow_nan=False)
    trained = [line.cost for line in found.lines if line.kind in ("train", "distil")]
    assert all(cost.tokens and cost.memory and cost.seconds for cost in trained)


def test_a_small_run(tmp_path: Path) -> None:
    _, found = estimate(small_run(tmp_path))
    first, mined, chosen, out = found.lines
    assert first.cost.tokens == pytest.approx(3 * 4 * (6 + 16))
    assert first.cost.what == "lora 135M, 3 steps"
    assert mined.cost.tokens == pytest.approx(12 * (6 + 16))
    assert chosen.cost.tokens == 0
    assert out.cost.disk == 4 * 134515008
    assert found.seconds.is_whole
    assert found.seconds.value == pytest.approx(sum(line.cost.seconds or 0 for line in found.lines))


@pytest.mark.usefixtures("no_network")
def test_an_unknown_model_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_run(tmp_path, "someone/unheard-of")
    assert run_main(["plan", str(path)]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith(" first") and "3 steps" in line)
    assert line.split() == ["first", "lora,", "3", "steps", "260", "unknown", "unknown", "unknown"]
    assert "at least" in next(line for line in printed.splitlines() if line.startswith(" total"))


def test_rows_that_cannot_be_sampled_are_no_error(tmp_path: Path) -> None:
    run = load_run(small_run(tmp_path))
    setting = Setting(run, Machine())
    assert setting.texts(run.stages[0], "one") is not None
    other = run.model_copy(
        update={"sources": {"one": run.sources["one"].model_copy(update={"rows": str(tmp_path / "gone")})}}
    )
    assert Setting(other, Machine()).texts(run.stages[0], "one") is None
    assert Setting(other, Machine()).num_rows("one") is None


def test_what_is_done_is_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_run(tmp_path)
    run = load_run(path)
    first = plan_run(run)[0]
    first.folder.mkdir(parents=True)
    mark_done(first.folder, {"parts": first.parts, "seconds": 41.3})
    _, found = estimate(path)
    assert [line.is_done for line in found.lines] == [True, False, False, False]
    print_costs(found)
    printed = capsys.readouterr().out
    assert "done in 41 s" in printed
    assert "3 left" in printed


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["plan", str(small_run(tmp_path)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in found["stages"]] == ["first", "mined", "chosen", "out"]
    first = found["stages"][0]
    assert (first["state"], first["tokens"], first["reads"]) == ("to do", 264, ["one"])
    assert first["seconds"] > 0 < first["memory_bytes"]
    assert found["left"]["seconds"]["whole"] is True


def run_main(words: list[str]) -> int:
    """The command's exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["embedtrain", *words])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    small_run(tmp_path)
    config = (ROOT / "configs" / "mistral_7b.yaml").read_text()
    (tmp_path / "big.yaml").write_text(
        config.replace("name: mistral_7b\n", f"name: big\nfolder: {tmp_path}\n")
    )
    machine = Machine(device="cuda", gpu="l4", chunk_tokens=16384)
    _, found = estimate(tmp_path / "big.yaml", machine)
    faults = [fault for fault in found.faults() if "pretrain" in fault]
    assert len(faults) == 1
    assert faults[0].startswith("stage 'pretrain' needs ~")
    assert faults[0].endswith(
        " GB on each device; an l4 has 24: lower chunk_tokens or use activation_checkpointing"
        "; 5 more stages need too much"
    )
    _, fits = estimate(tmp_path / "big.yaml", Machine(device="cuda", gpu="h200", chunk_tokens=8192))
    assert [fault for fault in fits.faults() if "stage" in fault] == []


def test_activation_checkpointing_needs_less_memory_and_more_time() -> None:
    machine = Machine(device="cuda", gpu="h100", chunk_tokens=16384)
    path = ROOT / "configs" / "mistral_7b.yaml"
    (_, plain), (_, again) = (
        estimate(path, machine.model_copy(update={"activation_checkpointing": on})) for on in (False, True)
    )
    before, after = plain.lines[0].cost, again.lines[0].cost
    assert before.memory
    assert after.memory
    assert after.memory.low < before.memory.low
    assert before.seconds
    assert after.seconds
    assert after.seconds > before.seconds


def test_a_base_in_4_bits_needs_less_memory() -> None:
    path, machine = ROOT / "configs" / "mistral_7b.yaml", Machine(device="cuda", gpu="h100")
    run = load_run(path, ["base.load=nf4"])
    shape = model_of(run, "base").shape
    assert shape is not None
    (_, whole), small = estimate(path, machine), estimate_run(run, machine, plan_run(run))
    before, after = whole.lines[0].cost.memory, small.lines[0].cost.memory
    assert before is not None
    assert after is not None
    assert before.low - after.low == pytest.approx((2 - NF4) * shape.products)
    assert whole.lines[1].cost.memory == small.lines[1].cost.memory  # no other kind of stage has it so
