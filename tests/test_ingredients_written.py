"""Soups as folders: of the kind of the first ingredient, whole or absent, loaded by who loads such."""

import errno
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import change_json, tiny_export
from ingredients import SHAPES, save_adapters, save_peft
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from small_disks import small_disk
from test_ingredients import held, largest_difference
from test_model_existing import save_embedder
from tiny_models import TEXTS, save_tiny

from embedtrain.artifacts import read_json
from embedtrain.average import average
from embedtrain.config.errors import UserError, disk_full_is_an_error, is_disk_full
from embedtrain.model.checkpoint import save_encoder
from embedtrain.model.export import export_encoder
from embedtrain.model.ingredients import open_ingredient, write_merged
from embedtrain.model.load import open_encoder
from embedtrain.model.lora import tune_all

MADE = {
    "method": {"kind": "mean", "weights": [0.25, 0.75]},
    "ingredients": [
        {"name": "one", "path": "runs/one", "hash": "0123456789abcdef", "weight": 0.25, "score": 0.51234},
        {"name": "two", "path": "runs/two", "hash": "fedcba9876543210", "weight": 0.75, "score": None},
    ],
}


def write_soup(paths: list[Path], folder: Path) -> Path:
    """The uniform soup of the folders, of the first one's kind."""
    with ExitStack() as stack:
        parts = [open_ingredient(path, stack) for path in paths]
        write_merged(average([part.tensors for part in parts]), parts[0], folder, MADE)
    assert not folder.with_name(f"{folder.name}.partial").exists()
    return folder


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Every file with weights below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_soup_of_one_export_is_that_export(tmp_path: Path, precision: str) -> None:
    """To the byte, also where a weight is -0."""
    _, export = tiny_export(tmp_path, precision=precision)
    stored = load_file(export / "model.safetensors")
    stored["norm.weight"][0] = -0.0
    save_file(stored, export / "model.safetensors", metadata={"format": "pt"})
    soup = write_soup([export] * 3, tmp_path / "soup")
    found = load_file(soup / "model.safetensors")
    assert found.keys() == stored.keys()
    for name, tensor in stored.items():
        assert found[name].view(torch.uint8).numpy().tobytes() == tensor.view(torch.uint8).numpy().tobytes()
    names = {path.name for path in soup.iterdir()}
    assert names == {path.name for path in export.iterdir()} | {"soup.json"}
    for name in names - {"README.md", "soup.json", "model.safetensors", "1_Pooling", "2_Normalize"}:
        assert read_json(soup / name) == read_json(export / name), name


def test_an_exported_soup_loads_in_sentence_transformers(tmp_path: Path) -> None:
    """With its Dense, a folder for the backbone or none, and the vectors of our encoder."""
    for number, family in enumerate(("bert", "llama")):
        place = tmp_path / family
        save_embedder(place / "one", family, dense=True)
        save_embedder(place / "two", family, dense=True, seed=7)
        (place / "one/chat_template.jinja").write_text("{{ messages }}")
        soup = write_soup([place / "one", place / "two"], place / "soup")
        mixed = {n: (t + held(place / "two")[n]) / 2 for n, t in held(place / "one").items()}
        assert largest_difference(held(soup), mixed) < 1e-6
        model = SentenceTransformer(str(soup), device="cpu")
        ours = open_encoder(soup)
        assert np.abs(ours.encode(TEXTS, "query") - model.encode_query(list(TEXTS))).max() < 1e-5
        assert np.abs(ours.encode(TEXTS) - open_encoder(place / "one").encode(TEXTS)).max() > 1e-3
        assert not list(soup.rglob("chat_template*")), number


def test_the_card_says_what_it_is_a_soup_of(tmp_path: Path) -> None:
    _, export = tiny_export(tmp_path)
    soup = write_soup([export, export], tmp_path / "blend")
    card = (soup / "README.md").read_text()
    assert "# blend\n" in card
    assert "| one | 0123456789ab | 0.25 | 0.5123 |" in card
    assert "| two | fedcba987654 | 0.75 |" in card
    assert "Method: mean (weights [0.25, 0.75])." in card
    assert read_json(soup / "soup.json") == MADE


def test_adapters_give_a_full_checkpoint(tmp_path: Path) -> None:
    adapters = save_adapters(tmp_path, SHAPES[:2])
    soup = write_soup(adapters, tmp_path / "soup")
    one, two = (held(path) for path in adapters)
    assert largest_difference(held(soup), {name: (one[name] + two[name]) / 2 for name in one}) < 1e-7
    saved = read_json(soup / "encoder.json")
    assert saved["lora"] is None
    assert saved["base_weights"] is None
    assert saved["spec"] == read_json(adapters[0] / "encoder.json")["spec"]
    again = write_soup([soup, soup], tmp_path / "again")
    assert file_bytes(again) == file_bytes(soup)


def test_a_peft_folder_gives_a_full_checkpoint(tmp_path: Path) -> None:
    path = save_peft(tmp_path / "peft", save_tiny("llama", tmp_path / "base"))
    soup = write_soup([path, path], tmp_path / "soup")
    assert largest_difference(held(soup), held(path)) < 1e-6
    assert np.abs(open_encoder(soup).encode(TEXTS) - open_encoder(path).encode(TEXTS)).max() < 1e-6


def test_a_dense_stays_in_a_checkpoint(tmp_path: Path) -> None:
    save_embedder(tmp_path / "st", dense=True)
    encoder = open_encoder(tmp_path / "st")
    tune_all(encoder)
    encoder.folded = True
    full = save_encoder(encoder, tmp_path / "full")
    soup = write_soup([full, full], tmp_path / "soup")
    assert file_bytes(soup).keys() == file_bytes(full).keys()
    assert largest_difference(held(soup), held(full)) == 0
    assert open_encoder(soup).dim == 16


def test_shards_become_what_fits_one_file(tmp_path: Path) -> None:
    encoder, export = tiny_export(tmp_path)
    export_encoder(encoder, tmp_path / "shards", max_shard_bytes=30_000)
    soup = write_soup([tmp_path / "shards", export], tmp_path / "soup")
    assert list(file_bytes(soup)) == ["model.safetensors"]
    assert not (soup / "model.safetensors.index.json").exists()
    assert largest_difference(held(soup), held(export)) == 0


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    _, export = tiny_export(tmp_path)
    before = file_bytes(export)
    with pytest.raises(UserError, match="/model: it is there already; a soup never overwrites a model"):
        write_soup([export, export], export)
    assert file_bytes(export) == before


def test_what_goes_wrong_while_merging_leaves_nothing(tmp_path: Path) -> None:
    _, export = tiny_export(tmp_path)
    with ExitStack() as stack:
        part = open_ingredient(export, stack)

        def fail(name: str, start: int = 0, stop: int = 0) -> torch.Tensor:
            raise KeyboardInterrupt

        broken = type(part.tensors)("m", part.tensors.info, fail, fail)
        with pytest.raises(KeyboardInterrupt):
            write_merged(broken, part, tmp_path / "soup", {})
    assert not list(tmp_path.glob("soup*"))


@pytest.mark.parametrize("kind", ["export", "adapter"])
def test_a_full_disk_leaves_nothing_that_looks_whole(tmp_path: Path, kind: str) -> None:
    path = tiny_export(tmp_path)[1] if kind == "export" else save_adapters(tmp_path, SHAPES[:1])[0]
    place = tmp_path / "disk"
    with small_disk(place, 65_536):
        with pytest.raises(UserError) as error:
            write_soup([path, path], place / "soup")
        assert list(place.iterdir()) == []
    assert re.fullmatch(
        rf"{place / 'soup'}: no space left to write it, [\d,]+ bytes are free; make room and run again",
        str(error.value),
    )


def test_errors_of_a_full_disk_are_known_in_any_words() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        assert is_disk_full(OSError(number, os.strerror(number)))
    assert not is_disk_full(OSError(errno.EACCES, "no"))
    assert not is_disk_full(ValueError("28 rows"))
    with pytest.raises(PermissionError), disk_full_is_an_error("x"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(UserError, match=r"^the rows are wrong$"), disk_full_is_an_error("x"):
        raise UserError("the rows are wrong")
    with pytest.raises(UserError, match=r"^no space left to write it"), disk_full_is_an_error():
        raise OSError(errno.ENOSPC, "full")


def test_safetensors_own_words_are_known(tmp_path: Path) -> None:
    """`save_file`, which checkpoints are written with, tells of a full disk in an error of its own."""
    with small_disk(tmp_path / "disk", 65_536):
        with pytest.raises((SafetensorError, OSError)) as error:
            save_file({"w": torch.zeros(100_000)}, tmp_path / "disk/w.safetensors")
        assert is_disk_full(error.value)


def test_any_command_tells_of_a_full_disk(tmp_path: Path) -> None:
    """Exit code 2 and one sentence: here of a limit that a shell sets."""
    rows = tmp_path / "rows.jsonl"
    lines = (f'{{"query": "question {n}", "positives": ["answer {n}"]}}\n' for n in range(5000))
    rows.write_text("".join(lines))
    command = f"ulimit -f 8; exec {sys.executable} -m embedtrain convert {rows} --out {tmp_path / 'out'}"
    environment = os.environ | {"EMBEDTRAIN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert "Traceback" not in done.stderr
    assert (done.returncode, "no space left to write it" in done.stderr) == (2, True), done.stderr


def test_settings_of_the_first_stay(tmp_path: Path) -> None:
    _, export = tiny_export(tmp_path)
    change_json(export / "config_sentence_transformers.json", lambda value: value.update(extra=1))
    soup = write_soup([export, export], tmp_path / "soup")
    assert read_json(soup / "config_sentence_transformers.json")["extra"] == 1
