"""Changes to a run: how they are parted, what each shorthand writes, and exactly what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from ablated import content, write_run

from embedtrain.ablation.setup import Asked, Setup, prepare
from embedtrain.ablation.shorthands import SHORTHANDS, expand
from embedtrain.ablation.variants import behind, seed_overrides, split_changes
from embedtrain.config.ablations import Ablation, read_ablation
from embedtrain.config.errors import ConfigError, UserError
from embedtrain.config.load import load_run
from embedtrain.config.schema import Run

RICH = """
name: rich
base: {model: m}
text: {query: "Instruct: {instruction}\\nQuery: {text}"}
sources:
  plain: {rows: x.jsonl, instruction: Find it}
  shown:
    rows: x.jsonl
    query: "{examples}task: {instruction} | query: {text}"
    max_query_tokens: 2048
    few_shot: {max_examples: 3}
stages:
  - {name: mined, kind: mine, from: base}
  - {name: chosen, kind: select, candidates: mined, rules: [{kind: perc_pos}, {kind: same_label}]}
  - name: tuned
    kind: train
    rows: chosen
    teacher: {model: pip:t==1}
    num_negatives: 3
    objective:
      matryoshka: {dims: [8, 4]}
      terms:
        - {kind: infonce, focal: {gamma: 0.5}, mixing: [{kind: list}], matryoshka: {dims: [8]}}
        - {kind: distill_kl, teacher: vectors}
        - {kind: distill_ce}
    batch_size: 2
    steps: 1
    lr: 1e-3
  - {name: soup, kind: soup, from: [tuned, tuned]}
  - {name: out, kind: export, from: soup, few_shot_examples: {shown: 2}, few_shot_by_default: true}
"""
TERMS = "stages.tuned.objective.terms"
WRITTEN = {
    "focal=off": [f"{TERMS}[0].focal=null"],
    "focal=2": [f'{TERMS}[0].focal={{"gamma": 2.0}}'],
    "mixing=off": [f"{TERMS}[0].mixing=[]"],
    "mixing=both": [f'{TERMS}[0].mixing=[{{"kind": "pair"}}, {{"kind": "list"}}]'],
    "masks=off": [f"{TERMS}[0].masks=[]"],
    "masks=above_margin": [f'{TERMS}[0].masks=[{{"kind": "same_text"}}, {{"kind": "above_margin"}}]'],
    "temperature=0.5": [f"{TERMS}[0].temperature=0.5"],
    "matryoshka=off": ["stages.tuned.objective.matryoshka=null", f"{TERMS}[0].matryoshka=null"],
    "distill_kl=0.3": [f"{TERMS}[1].weight=0.3"],
    "attention=causal": ["encoder.attention=causal"],
    "pooling=last_token": ["encoder.pooling=last_token"],
    "margin=none": ['stages.chosen.rules=[{"kind": "same_label"}]'],
    "margin=shift": ['stages.chosen.rules=[{"kind": "shift", "ranks": 10}, {"kind": "same_label"}]'],
    "soup=off": ["stages.out.from=tuned"],
    "few_shot=0": ["stages.out.few_shot_by_default=false"],
    "few_shot=3": ['stages.out.few_shot_examples={"shown": 3}', "stages.out.few_shot_by_default=true"],
    "few_shot=off": [
        "sources.shown.few_shot=null",
        'sources.shown.query="task: {instruction} | query: {text}"',
        "stages.out.few_shot_examples={}",
        "stages.out.few_shot_by_default=false",
    ],
    "instructions=off": [
        'text.query="Query: {text}"',
        'sources.shown.query="{examples}query: {text}"',
        'sources.shown.few_shot.example="Query: {query}\\nResponse: {response}"',
        'sources.plain.instruction=""',
    ],
    "stages.tuned.lr=1": ["stages.tuned.lr=1"],
    "precision=bfloat16": ["precision=bfloat16"],
}


@pytest.fixture
def rich(tmp_path: Path) -> Run:
    (tmp_path / "rich.yaml").write_text(RICH)
    return load_run(tmp_path / "rich.yaml")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changes")
    write_run(folder)
    return folder


@pytest.mark.parametrize("change", WRITTEN)
def test_what_a_change_writes(change: str, rich: Run, tmp_path: Path) -> None:
    assert expand(rich, change) == WRITTEN[change]
    load_run(tmp_path / "rich.yaml", expand(rich, change))  # the schema takes it


def test_every_shorthand_is_tested() -> None:
    assert {change.partition("=")[0] for change in WRITTEN} >= SHORTHANDS.keys() - {"soft_labels"}


def test_terms_that_are_gone_take_a_teacher_with_them_that_nothing_asks(rich: Run, tmp_path: Path) -> None:
    after = load_run(tmp_path / "rich.yaml", expand(rich, "distill_kl=off"))
    assert [term.kind for term in after.stages[2].objective.terms] == ["infonce", "distill_ce"]
    assert after.stages[2].teacher is None
    assert after.stages[2].objective.terms[0] == rich.stages[2].objective.terms[0]
    after = load_run(tmp_path / "rich.yaml", expand(rich, "soft_labels=off"))
    assert [term.kind for term in after.stages[2].objective.terms] == ["infonce", "distill_kl"]
    assert after.stages[2].teacher is not None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("foccal=off", "no shorthand 'foccal'; did you mean 'focal'?"),
        ("focal", "'focal': expected path=value or a shorthand, for example focal=off"),
        ("focal=low", "focal: found 'low', expected off or a number above 0"),
        ("focal=-1", "focal: found '-1', expected off or a number above 0"),
        ("mixing=some", "mixing: found 'some', expected off, pair, list or both"),
        ("attention=full", "attention: found 'full', expected bidirectional or causal"),
        ("few_shot=few", "few_shot: found 'few', expected off or a whole number"),
        ("soup=no", "soup: found 'no', expected off"),
    ],
)
def test_what_is_refused(change: str, told: str, rich: Run) -> None:
    with pytest.raises(UserError) as caught:
        expand(rich, change)
    assert str(caught.value) == told


@pytest.mark.parametrize("name", sorted(SHORTHANDS.keys() - {"attention", "pooling"}))
def test_what_changes_nothing_is_refused(name: str, place: Path) -> None:
    entry = {"name": "out", "kind": "export", "from": "base"}
    run = Run.model_validate(content(place) | {"stages": [entry]})
    value = {"temperature": "0.5", "margin": "none"}.get(name, "off")
    with pytest.raises(UserError) as caught:
        expand(run, f"{name}={value}")
    assert str(caught.value) == f"{name}={value} changes nothing: {SHORTHANDS[name].lacking}"


def test_changes_are_parted_outside_brackets_and_quotes() -> None:
    assert split_changes("focal=off,mixing=off") == ["focal=off", "mixing=off"]
    assert split_changes(" focal=off  a.b=[1, 2],c={d: 1, e: [2, 3]} ") == [
        "focal=off",
        "a.b=[1, 2]",
        "c={d: 1, e: [2, 3]}",
    ]
    assert split_changes('text.query="to: {text}, now" soup=off') == [
        'text.query="to: {text}, now"',
        "soup=off",
    ]


# --- a whole ablation ---------------------------------------------------------------------------------------


def prepared(place: Path, vary: dict[str, list[str]], **given: Any) -> Setup:
    ablation, name = read_ablation(place / "run.yaml", {"vary": vary, "seeds": [1, 2]} | given)
    return prepare(Asked(ablation, name, "run.yaml", None))


def test_every_fault_is_told_before_anything_starts(place: Path) -> None:
    vary = {
        "typo": ["foccal=off"],
        "nothing": ["mixing=off"],
        "fast": ["stages.second.lr=fast", "focal=off"],
        "control": ["focal=off"],
    }
    given = {"model": "tune", "data": [str(place / "nowhere")], "seeds": [1, 2, 1]}
    with pytest.raises(ConfigError) as caught:
        prepared(place, vary, **given)
    assert caught.value.messages == [
        "run.yaml: model: no export stage 'tune'; did you mean 'tuned'?",
        f"run.yaml: data: '{place}/nowhere' is not there",
        "run.yaml: vary: 'control' is the name of another row; give the variant another name",
        "run.yaml: seeds: 1 is there twice",
        "variant 'typo': no shorthand 'foccal'; did you mean 'focal'?",
        "variant 'nothing': mixing=off changes nothing: no term has mixed negatives, or rows to mix them "
        "from",
        "variant 'fast': --set stages.second.lr=fast: stages 'second' > lr: found 'fast' (text), expected "
        "a number",
    ]


def test_variants_that_are_no_variants_are_refused(place: Path) -> None:
    vary = {
        "soup": ["soup=off"],
        "lr": ["stages.again.lr=1"],
        "a": ["focal=off"],
        "b": ["focal=off", "soup=off"],
    }
    with pytest.raises(ConfigError) as caught:
        prepared(place, vary, model="tuned", seeded=["second"])
    assert caught.value.messages == [
        "variant 'soup': changes nothing that 'tuned' is made of",
        "variant 'lr': changes nothing that 'tuned' is made of",
        "variants 'a' and 'b' make the same model; leave one of them out",
    ]


def test_seeds_must_reach_the_model(place: Path) -> None:
    for seeded, told in {
        "second_": "run.yaml: seeded: no stage 'second_'; did you mean 'second'?",
        "soup": "run.yaml: seeded: 'soup' is a stage of kind soup; expected a train or distil stage",
        "again": "run.yaml: seeded: 'tuned' is not made of 'again'",
    }.items():
        with pytest.raises(ConfigError) as caught:
            prepared(place, {"a": ["focal=off"]}, model="tuned", seeded=[seeded])
        assert caught.value.messages == [told]
    with pytest.raises(ConfigError) as caught:
        prepared(place, {"a": ["soup=off"]}, model="souped", seeded=["again"])
    assert caught.value.messages == [
        "variant 'a': its seeds make the same model, for no seeded stage is behind 'souped'"
    ]


def test_a_control_that_changes_nothing_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(place, {"a": ["focal=off"]}, control=["masks=same_text"])
    assert caught.value.messages == ["variant 'control': changes nothing that 'tuned' is made of"]


def test_something_must_vary(place: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(place, {})
    assert caught.value.messages == ["run.yaml: vary: nothing varies; name a change, for example focal=off"]


def test_an_ablation_file_is_strict_and_what_is_given_wins(tmp_path: Path) -> None:
    file = tmp_path / "parts.yaml"
    file.write_text("run: r.yaml\nset: [a.b=1]\nvary: {no focal: [focal=off]}\nseeds: [1, 2, 3]\n")
    ablation, name = read_ablation(file, {"seeds": [4], "set": ["a.b=2"]})
    assert (name, ablation.seeds, ablation.set_) == ("parts", (4,), ("a.b=1", "a.b=2"))
    assert ablation.vary == {"no focal": ("focal=off",)}
    assert ablation.control == Ablation(run="r", vary={"a": ("b=1",)}).control == ("temperature=0.5",)
    file.write_text("run: r.yaml\nvarry: {a: [b=1]}\nseeds: 3\n")
    with pytest.raises(ConfigError) as caught:
        read_ablation(file, {})
    assert caught.value.messages == [
        f"{file}: varry: unknown key; did you mean 'vary'?",
        f"{file}: seeds: found 3 (number), expected a list",
    ]


def test_stages_behind_a_model_are_those_it_is_made_of(place: Path) -> None:
    run = load_run(place / "run.yaml")
    assert [stage.name for stage in behind(run, "tuned")] == ["first", "second", "tuned"]
    assert [stage.name for stage in behind(run, "souped")] == ["first", "second", "again", "soup", "souped"]


def test_seeds_of_a_run_and_of_stages(place: Path) -> None:
    run = load_run(place / "run.yaml")
    assert seed_overrides(run, 3, None) == ["seed=3", "stages.again.seed=3008"]
    assert seed_overrides(run, 3, ["second", "again"]) == ["stages.second.seed=3", "stages.again.seed=3008"]


def test_a_seed_of_later_stages_shares_the_earlier_ones_and_names_are_no_part(place: Path) -> None:
    setup = prepared(place, {"a": ["focal=off"]}, seeded=["second"])
    plans = {key: [plan.folder for plan in cell.planned] for key, cell in setup.found.items()}
    first = {folders[0] for (name, _), folders in plans.items() if name != "control"}
    assert len(first) == 1
    assert len({folders[-1] for folders in plans.values()}) == len(plans) == 6
    other = prepared(place, {"again": ["focal=off"]}, seeded=["second"], set=["name=another"])
    ends = [[plan.folder.name for plan in cell.planned] for cell in other.cells]
    assert ends == [[plan.folder.name for plan in cell.planned] for cell in setup.cells]
    whole = prepared(place, {"a": ["focal=off"]})
    assert len({cell.planned[0].folder for cell in whole.cells}) == 4  # two seeds, and the control's


def test_the_first_message_of_a_broken_run_is_its_own(place: Path) -> None:
    broken = content(place)
    broken["seed"] = "x"
    (place / "broken.yaml").write_text(json.dumps(broken))
    ablation, name = read_ablation(place / "broken.yaml", {"vary": {"a": ["foccal=1"]}})
    with pytest.raises(ConfigError) as caught:
        prepare(Asked(ablation, name, "broken.yaml", None))
    assert caught.value.messages == [f"{place}/broken.yaml: seed: found 'x' (text), expected a whole number"]
