"""A Router package holds two models: queries come from the one, documents from the other, to the bit."""

from pathlib import Path

import numpy as np
import pytest
from exports import DOCUMENTS, QUERIES, change_json
from routers import LEAF_TEXT, TEACHER_TEXT, export_narrow, export_tiny, make_router
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_models import save_tiny

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.model.router import router_prompts, write_router
from embedtrain.model.router_parity import Route, check_router
from embedtrain.model.st import open_sentence_transformer


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("leaf"), "llama", LEAF_TEXT, ["FAQ"])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("teacher"), "bert", TEACHER_TEXT, ["FAQ", "Titles"])


@pytest.fixture(scope="module")
def package(
    leaf: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[Route, Route]]:
    folder = tmp_path_factory.mktemp("package") / "router"
    return folder, make_router(folder, leaf, teacher)


def copy_of(package: tuple[Path, tuple[Route, Route]], leaf: Path, teacher: Path, place: Path) -> Path:
    """The package once more, to be damaged."""
    prompts = read_json(package[0] / "config_sentence_transformers.json")["prompts"]
    write_router(leaf, teacher, place / "router", prompts)
    return place / "router"


# what it gives


def test_sentence_transformers_gives_each_sides_own_vectors(
    package: tuple[Path, tuple[Route, Route]], leaf: Path, teacher: Path
) -> None:
    model = SentenceTransformer(str(package[0]), device="cpu")
    one, other = (SentenceTransformer(str(folder), device="cpu") for folder in (leaf, teacher))
    assert np.array_equal(model.encode_query(QUERIES), one.encode_query(QUERIES))
    assert np.array_equal(model.encode_document(DOCUMENTS), other.encode_document(DOCUMENTS))
    assert np.array_equal(model.encode(DOCUMENTS), other.encode(DOCUMENTS))
    # the premise: both models and all prompts give other vectors
    assert np.abs(one.encode_query(QUERIES) - other.encode_query(QUERIES)).max() > 0.01
    assert np.abs(other.encode(DOCUMENTS) - other.encode_document(DOCUMENTS)).max() > 0.01
    assert np.abs(other.encode_query(DOCUMENTS) - other.encode_document(DOCUMENTS)).max() > 0.01


def test_prompts_of_tasks_go_with_their_side(
    package: tuple[Path, tuple[Route, Route]], leaf: Path, teacher: Path
) -> None:
    model, one, other = (open_sentence_transformer(folder) for folder in (package[0], leaf, teacher))
    for task in ("FAQ", "Titles", "none of them"):
        pairs = [(m.for_task(task), m) for m in (model, one, other)]
        (routed, _), (asks, plain), (answers, _) = pairs
        for texts, side, own in ((QUERIES, "query", asks), (DOCUMENTS, "document", answers)):
            assert np.array_equal(routed.encode(texts, side=side), own.encode(texts, side=side)), (task, side)
        moved = np.abs(asks.encode(QUERIES, side="query") - plain.encode(QUERIES, side="query")).max()
        assert (moved > 0.01) == (task == "FAQ")


def test_its_prompts_by_name(package: tuple[Path, tuple[Route, Route]]) -> None:
    told = read_json(package[0] / "config_sentence_transformers.json")
    leaf, teacher = "Instruct: as llama ", "Instruct: as bert "
    assert told["prompts"] == {
        "query": "find: ",
        "document": "read this text: ",
        "FAQ": teacher,
        "FAQ-query": leaf,
        "FAQ-document": "read this text: ",
        "Titles": teacher,
        "Titles-query": "find: ",
        "Titles-document": "read this text: ",
        "llama-query": leaf,
        "llama-document": "read this text: ",
        "bert": teacher,
        "bert-query": "find: ",
        "bert-document": teacher,
    }
    assert told["default_prompt_name"] is None
    assert told["similarity_fn_name"] == "cosine"


def test_prompts_of_a_side_by_a_slow_rule() -> None:
    """What evaluation looks up in each model alone stands under the side's name."""
    one = {"query": "q", "document": "d", "A": "a", "B-query": "bq", "B-document": "bd", "C_document": "cd"}
    other = {"query": "Q", "passage": "P", "A": "A!", "D": "D!", "B-query": "BQ"}
    got = router_prompts(one, other)
    assert got["query"] == "q"
    assert got["document"] == "P"
    for task in ("A", "B", "D"):
        for side, prompts, plain in (("query", one, "q"), ("document", other, "P")):
            wanted = plain
            for name in (task, f"{task}-{side}"):
                wanted = prompts.get(name, wanted)
            assert got[f"{task}-{side}"] == wanted, (task, side)
    assert {"A": "A!", "D": "D!"}.items() <= got.items()
    assert not any(name.startswith("C_") for name in got)


def test_the_proof_says_what_it_compared(package: tuple[Path, tuple[Route, Route]]) -> None:
    facts = check_router(package[0], package[1])
    assert facts["token_ids"] == "equal"
    assert facts["max_relative_difference"] == 0.0
    assert facts["bound"] == 1e-5
    assert facts["dims"] == 32
    assert set(facts["compared"]) == {
        *("query", "query of FAQ", "query of llama"),
        *("document", "document of FAQ", "document of Titles", "document of bert"),
    }
    assert all(len(route.seen[""].texts) >= 3 + 1 for route in package[1])


def test_a_prompt_that_leaves_the_pool_leaves_it_on_its_side_alone(tmp_path: Path, teacher: Path) -> None:
    leaf = export_tiny(
        tmp_path,
        "llama",
        LEAF_TEXT.model_copy(update={"query": "find:{text}", "document": "leaf:{text}"}),
        pool_instruction=False,
    )
    routes = make_router(tmp_path / "router", leaf, teacher)
    assert check_router(tmp_path / "router", routes)["max_relative_difference"] == 0.0
    model = SentenceTransformer(str(tmp_path / "router"), device="cpu")
    pooled = [[m.include_prompt for m in route if hasattr(m, "include_prompt")] for route in routes_of(model)]
    assert pooled == [[True], [False]]


def routes_of(model: SentenceTransformer) -> list[object]:
    """The modules of the routes, documents first as the file lists them."""
    return [model[0].sub_modules[side] for side in ("document", "query")]


def test_limits_stay_apart_and_only_shrink(package: tuple[Path, tuple[Route, Route]]) -> None:
    for max_tokens, limits in ((None, [40, 20]), (30, [30, 20]), (10, [10, 10])):
        model = open_sentence_transformer(package[0], max_tokens=max_tokens).model
        assert [route[0].max_seq_length for route in routes_of(model)] == limits


def test_the_limit_of_documents_can_be_lowered(tmp_path: Path, leaf: Path, teacher: Path) -> None:
    make_router(tmp_path / "router", leaf, teacher, document_limit=9)
    model = SentenceTransformer(str(tmp_path / "router"), device="cpu")
    assert [route[0].max_seq_length for route in routes_of(model)] == [9, 20]
    alone = SentenceTransformer(str(teacher), device="cpu")
    alone.max_seq_length = 9
    assert np.array_equal(model.encode_document(DOCUMENTS), alone.encode_document(DOCUMENTS))


# what is copied


def test_pickles_templates_and_foreign_files_stay_behind(tmp_path: Path, leaf: Path) -> None:
    teacher = saved_by_sentence_transformers(tmp_path / "teacher")
    (teacher / "pytorch_model.bin").write_bytes(b"a pickle")
    (teacher / "onnx").mkdir()
    routes = make_router(tmp_path / "router", leaf, teacher)
    assert check_router(tmp_path / "router", routes)["max_relative_difference"] == 0.0
    names = {file.name for file in (tmp_path / "router").rglob("*")}
    assert not names & {"pytorch_model.bin", "onnx", "chat_template.jinja"}
    config = read_json(tmp_path / "router/document_0_Transformer/tokenizer_config.json")
    assert "chat_template" not in config
    assert read_json(tmp_path / "router/router_config.json")["types"] == {
        f"{side}_{number}_{kind}": f"sentence_transformers.models.{kind}"
        for side, kinds in (
            ("query", ("Transformer", "Pooling", "Normalize")),
            ("document", ("Transformer", "Pooling")),
        )
        for number, kind in enumerate(kinds)
    }
    plain = SentenceTransformer(str(tmp_path / "router"), device="cpu")
    assert np.array_equal(
        plain.encode_document(DOCUMENTS),
        open_sentence_transformer(teacher).encode(DOCUMENTS, side="document", normalize=False),
    )


def saved_by_sentence_transformers(folder: Path) -> Path:
    """A folder as version 6 saves it, whose chat template it puts around every text."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    first = Transformer(str(save_tiny("llama", folder.with_name("bare"), seed=5)), model_kwargs={})
    model = SentenceTransformer(modules=[first, Pooling(32)], device="cpu")
    if model.tokenizer.pad_token is None:
        model.tokenizer.pad_token = "</s>"
    model.save_pretrained(str(folder))
    assert "message" in SentenceTransformer(str(folder), device="cpu")[0].modality_config
    return folder


def test_older_names_of_the_length_file_are_read(tmp_path: Path, leaf: Path, teacher: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for file in teacher.rglob("*"):
        if file.is_file():
            (old / file.relative_to(teacher)).parent.mkdir(exist_ok=True)
            (old / file.relative_to(teacher)).write_bytes(file.read_bytes())
    (old / "sentence_bert_config.json").rename(old / "sentence_roberta_config.json")
    make_router(tmp_path / "router", leaf, old, document_limit=9)
    place = tmp_path / "router/document_0_Transformer"
    assert read_json(place / "sentence_bert_config.json") == {"max_seq_length": 9, "do_lower_case": False}
    assert not (place / "sentence_roberta_config.json").exists()


def test_nothing_is_overwritten_and_nothing_nested(
    package: tuple[Path, tuple[Route, Route]], leaf: Path, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"router: it is there already; an export never overwrites a model"):
        write_router(leaf, teacher, package[0], {})
    with pytest.raises(UserError, match=r"router is a Router itself; expected a single model for each side"):
        write_router(leaf, package[0], tmp_path / "nested", {})
    assert not (tmp_path / "nested").exists()


# what is refused


def test_damage_fails_the_proof(
    package: tuple[Path, tuple[Route, Route]], leaf: Path, teacher: Path, tmp_path: Path
) -> None:
    folder = copy_of(package, leaf, teacher, tmp_path)
    settings = folder / "config_sentence_transformers.json"
    change_json(settings, lambda v: v["prompts"].update(document="find: "))
    with pytest.raises(UserError, match=r"parity: .*router: document 'Déjà.*the model alone sees \d+ tokens"):
        check_router(folder, package[1])
    change_json(settings, lambda v: v["prompts"].update(document="read this text: "))
    assert check_router(folder, package[1])["max_relative_difference"] == 0.0
    weights = folder / "query_0_Transformer/model.safetensors"
    tensors = load_file(weights)
    tensors["norm.weight"] *= 1 + 1e-3 * (tensors["norm.weight"].cumsum(0) % 2)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"does not give the vectors of the query model alone: a difference"):
        check_router(folder, package[1])


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        (
            "foreign code",
            {"query_1_Pooling": "os.path"},
            r"router_config.json: module 'os.path' is code from outside sentence-transformers",
        ),
        (
            "elsewhere",
            {"../leaf": "sentence_transformers.models.Transformer"},
            r"router_config.json: module '../leaf' lies outside the folder",
        ),
    ],
)
def test_foreign_code_in_a_route_is_refused(
    name: str,
    damage: dict[str, str],
    said: str,
    package: tuple[Path, tuple[Route, Route]],
    leaf: Path,
    teacher: Path,
    tmp_path: Path,
) -> None:
    folder = copy_of(package, leaf, teacher, tmp_path)
    change_json(folder / "router_config.json", lambda v: v["types"].update(damage))
    with pytest.raises(UserError, match=said):
        open_sentence_transformer(folder)


def test_pickles_in_a_route_are_refused(
    package: tuple[Path, tuple[Route, Route]], leaf: Path, teacher: Path, tmp_path: Path
) -> None:
    folder = copy_of(package, leaf, teacher, tmp_path)
    place = folder / "document_0_Transformer"
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"document_0_Transformer: weights are in pytorch_model.bin, a"):
        open_sentence_transformer(folder)
    (folder / "router_config.json").unlink()
    with pytest.raises(UserError, match=r"router: no router_config.json says what its routes are"):
        open_sentence_transformer(folder)


def test_routes_of_unlike_dims_are_refused(tmp_path: Path, leaf: Path) -> None:
    write_router(leaf, export_narrow(tmp_path), tmp_path / "router", {})
    with pytest.raises(UserError, match=r"router: its routes give vectors of 16 and 32 dims, which cannot"):
        open_sentence_transformer(tmp_path / "router")
