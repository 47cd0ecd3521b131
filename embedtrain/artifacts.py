"""Files that are whole or absent: atomic writes, content hashes, and the marker of a finished folder."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DONE = "done.json"
CHECKPOINTS, BEST = "checkpoints", "best"
"""In the folder of an unfinished training: what it goes on from."""
WORK = "work"
"""In the folder of an unfinished mine or score stage: the units that are finished."""
BLOCK = 1 << 20


def cache_folder(kind: str) -> Path:
    """Where models, rows and tokens are kept that are made once: `$EMBEDTRAIN_CACHE`, or below the home."""
    return Path(os.environ.get("EMBEDTRAIN_CACHE") or Path.home() / ".cache" / "embedtrain") / kind


@contextmanager
def put_in_place(aside: Path, path: Path) -> Iterator[None]:
    """Write the file `aside`: it is `path` at the end, and removed where anything goes wrong."""
    try:
        yield
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write aside, flush to the disk, rename: a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with put_in_place(aside, path), aside.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    flush(path.parent)
    return path


def flush(path: Path | str) -> None:
    """Bring to the disk what was written to a file, or which files are in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path | str, value: object) -> Path:
    """`value` as indented JSON with sorted keys, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, text + "\n")


def read_json(path: Path | str) -> Any:
    """The value in a JSON file."""
    return json.loads(Path(path).read_text())


def is_inside(name: object) -> bool:
    """Whether a name found in a file can only mean the folder that it is joined to, or a place below."""
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def leads_inside(folder: Path, name: object) -> bool:
    """The same of what is on the disk: no link on the way leads out of the folder."""
    return (
        isinstance(name, str)
        and is_inside(name)
        and (folder / name).resolve().is_relative_to(folder.resolve())
    )


def hash_bytes(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def hash_json(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hash_bytes(text.encode())


def hash_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def list_files(path: Path | str) -> list[Path]:
    """The file itself, or every file below the folder, hidden ones left out, sorted."""
    path = Path(path)
    if path.is_file():
        return [path]
    visible = (
        p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts)
    )
    return sorted(p for p in visible if p.is_file())


def hash_folder(path: Path | str) -> str:
    """SHA-256 of a file, or of the names and contents of every visible file below a folder."""
    path = Path(path)
    if path.is_file():
        return hash_file(path)
    return hash_json({str(p.relative_to(path)): hash_file(p) for p in list_files(path)})


class HashCache:
    """Remembers content hashes by path, size and time of change, so that a plan costs no second read."""

    def __init__(self, path: Path) -> None:
        """Start from the entries in the file `path`, if it is there."""
        self.path = path
        self.known: dict[str, str] = read_json(path) if path.exists() else {}
        self.fresh = False

    def hash(self, path: Path | str) -> str:
        """Hash of a file or folder."""
        path = Path(path)
        if path.is_dir():
            return hash_json({str(p.relative_to(path)): self.hash(p) for p in list_files(path)})
        status = path.stat()
        key = f"{path}:{status.st_size}:{status.st_mtime_ns}"
        if key not in self.known:
            self.known[key] = hash_file(path)
            self.fresh = True
        return self.known[key]

    def save(self) -> None:
        """Write the entries where there are new ones."""
        if self.fresh:
            write_json(self.path, self.known)


def folder_bytes(path: Path | str) -> int:
    """Bytes in the files below a folder."""
    return sum(p.stat().st_size for p in Path(path).rglob("*") if p.is_file() and not p.is_symlink())


def mark_done(folder: Path | str, facts: Mapping[str, object]) -> None:
    """Say that a folder is complete. Written last."""
    write_json(Path(folder) / DONE, dict(facts))


def is_done(folder: Path | str) -> bool:
    """Whether a folder says that it is complete."""
    return (Path(folder) / DONE).is_file()


def replace_link(link: Path, target: Path) -> None:
    """Point the symbolic link at `target`, relative to its own folder, in one step."""
    aside = link.with_name(f".{link.name}.{os.getpid()}.partial")
    aside.unlink(missing_ok=True)
    with put_in_place(aside, link):
        aside.symlink_to(os.path.relpath(target, link.parent))
