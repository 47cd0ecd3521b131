"""The export stage: prompts of the run's sources, with fixed examples where it asks for them."""

from pathlib import Path

import pytest
from tiny_models import TEXTS, save_tiny

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.config.load import find_stage
from embedtrain.config.schema import Machine, Run
from embedtrain.data.rows import Row, write_rows
from embedtrain.stages import export
from embedtrain.stages.context import StageContext

INSTRUCT = "Instruct: {instruction}\nQuery: {text}"
FEW_SHOT = {"example": "{query} = {response}", "separator": "\n", "max_tokens": 200}
SOURCES = {
    "faq": {"instruction": "find it", "tasks": ["NFCorpus"]},
    "shots": {
        "query": "{examples}" + INSTRUCT,
        "instruction": "find it",
        "few_shot": FEW_SHOT,
        "max_query_tokens": 180,
    },
    "same": {"symmetric": True, "instruction": "the same", "max_query_tokens": 90},
}


def context_of(folder: Path, **stage: object) -> StageContext:
    save_tiny("llama", folder / "base")
    rows = [Row(f"{n} {TEXTS[0]}", (f"{n} {TEXTS[1]}",), label=f"class {n}") for n in range(9)]
    write_rows(folder / "rows.parquet", rows)
    run = Run.model_validate(
        {
            "name": "r",
            "base": {"model": str(folder / "base")},
            "text": {"query": INSTRUCT, "max_query_tokens": 40, "max_document_tokens": 50},
            "sources": {name: {"rows": str(folder / "rows.parquet")} | v for name, v in SOURCES.items()},
            "stages": [{"name": "out", "kind": "export", "from": "base", "num_parity_texts": 6} | stage],
        }
    )
    (folder / "out").mkdir()
    return StageContext(run, find_stage(run, "out"), Machine(), folder / "out", {})


def test_prompts_of_sources_tasks_and_examples(tmp_path: Path) -> None:
    context = context_of(tmp_path, few_shot_examples={"shots": 2})
    parity = export.run_stage(context)["parity"]
    prompts = read_json(tmp_path / "out/model/config_sentence_transformers.json")["prompts"]
    shots = prompts.pop("shots_2_shot")
    bare = "Instruct: find it\nQuery: "
    assert prompts == {
        "query": "Instruct: \nQuery: ",
        "document": "",
        "faq": bare,
        "NFCorpus": bare,
        "NFCorpus-query": bare,
        "NFCorpus-document": "",
        "shots": bare,
        "same": "Instruct: the same\nQuery: ",
    }
    assert shots.endswith("\n" + bare)
    shown = shots.removesuffix(bare).splitlines()
    assert len(set(shown)) == 2
    assert set(shown) <= {f"{n} {TEXTS[0]} = {n} {TEXTS[1]}" for n in range(9)}
    assert set(parity["compared"]) == {
        "query",
        "document",
        *(f"prompt '{name}'" for name in ("faq", "same", "shots_2_shot")),
    }
    assert parity["max_tokens"] == 180
    assert read_json(tmp_path / "out/parity.json")["token_ids"] == "equal"


def test_the_stages_limit_is_the_folders(tmp_path: Path) -> None:
    context = context_of(tmp_path, max_tokens=70)
    assert export.run_stage(context)["parity"]["max_tokens"] == 70


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(tmp_path: Path) -> None:
    context = context_of(tmp_path, few_shot_examples={"shots": 2}, max_tokens=70)
    with pytest.raises(UserError, match=r"prompt 'shots_2_shot' holds \d+ tokens, and .* cuts texts at 70"):
        export.run_stage(context)
    assert not (tmp_path / "out/model").exists()


def test_more_examples_than_fit_are_refused(tmp_path: Path) -> None:
    context = context_of(tmp_path, few_shot_examples={"shots": 5})
    with pytest.raises(UserError, match=r"source 'shots': its 5 examples hold \d+ tokens, and .* is 200"):
        export.run_stage(context)
    assert not (tmp_path / "out/model").exists()
