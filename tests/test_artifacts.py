"""Atomic files, hashes and links."""

import json
from pathlib import Path

import pytest

from embedtrain.artifacts import (
    HashCache,
    hash_file,
    hash_folder,
    hash_json,
    is_done,
    mark_done,
    read_json,
    replace_link,
    write_atomic,
    write_json,
)


def test_write_replaces_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_atomic(path, "old and long")
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"b": float("nan")})
    assert read_json(tmp_path / "a.json") == {"b": 1}


def test_hash_of_json_ignores_key_order_but_not_values() -> None:
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})


def test_folder_hash_sees_names_and_contents_but_not_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    before = hash_folder(tmp_path)
    (tmp_path / ".lock").write_text("")
    assert hash_folder(tmp_path) == before
    (tmp_path / "x").rename(tmp_path / "y")
    assert hash_folder(tmp_path) != before


def test_hash_cache_notices_a_changed_file_and_survives_a_restart(tmp_path: Path) -> None:
    data, saved = tmp_path / "data", tmp_path / "hashes.json"
    data.write_text("one")
    cache = HashCache(saved)
    assert cache.hash(data) == hash_file(data)
    cache.save()
    assert list(json.loads(saved.read_text()).values()) == [hash_file(data)]
    data.write_text("three")
    assert HashCache(saved).hash(data) == hash_file(data)


def test_done_marker(tmp_path: Path) -> None:
    assert not is_done(tmp_path)
    mark_done(tmp_path, {"seconds": 1.0})
    assert is_done(tmp_path)


def test_link_moves_to_a_new_target_and_is_relative(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        replace_link(tmp_path / "model", tmp_path / name)
    assert (tmp_path / "model").resolve() == (tmp_path / "two").resolve()
    assert (tmp_path / "model").readlink() == Path("two")
