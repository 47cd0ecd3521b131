"""Uploads an exported folder to a model hub: checked first, in one commit, and nothing but what is listed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedtrain.artifacts import read_json
from embedtrain.config.errors import UserError
from embedtrain.serving.answers import Outcome, Server
from embedtrain.serving.check import SERVERS, check_folder
from embedtrain.serving.served import PICKLES
from embedtrain.show.tables import print_table

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
KNOWN = (".json", ".safetensors", ".md", ".txt", ".model", ".onnx", ".data")
PARITY_PLACES = ("../parity.json", "onnx/parity.json")
HTTP_LIBRARIES = ("httpx", "httpx2")  # which of both huggingface_hub uses depends on its version
MESSAGE = "Upload a model exported by embedtrain"


@dataclass(frozen=True)
class Upload:
    """A file and its name in the repository."""

    path: Path
    name: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


def push_folder(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    card: Path | None = None,
    servers: Sequence[Server] = SERVERS,
    dry_run: bool = False,
) -> str | None:
    """Upload the folder and return the commit's address; with `dry_run` only check and list.

    Raises UserError where a file does not belong to a model, a server would refuse it, no proof is beside it,
    nobody is logged in, or the hub says no.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give an exported model, for example runs/NAME/model")
    uploads = list_uploads(folder, card)
    check_servers(folder, servers)
    check_proof(folder)
    total = sum(upload.size for upload in uploads)
    print_table(
        f"{folder} → {repo}: {len(uploads)} files, {shown_bytes(total)}",
        ("file", "size"),
        [(upload.name, shown_bytes(upload.size)) for upload in uploads],
    )
    return None if dry_run else send(uploads, repo, private=private, revision=revision)


def list_uploads(folder: Path, card: Path | None) -> list[Upload]:
    """Every file of the folder, the card in its place. Raises UserError naming each that is no model's."""
    root = folder.resolve()
    found = sorted(path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    foreign = [f"{path.relative_to(root)} ({why})" for path in found if (why := why_foreign(path, root))]
    if foreign:
        raise UserError(f"{folder}: not uploaded: {', '.join(foreign)}; remove what does not belong there")
    uploads = {str(path.relative_to(root)): path for path in found}
    if card is not None:
        if not card.is_file():
            raise UserError(f"--card {card}: no such file")
        uploads[CARD] = card
    if CARD not in uploads:
        raise UserError(f"{folder}: no {CARD}; give a model card with --card")
    return [Upload(path, name) for name, path in sorted(uploads.items())]


def why_foreign(path: Path, root: Path) -> str | None:
    """Why a file is not uploaded; None where it belongs to a model."""
    name = path.relative_to(root)
    if any(part.startswith(".") for part in name.parts):
        return "hidden"
    if path.is_symlink():
        return "a link"
    if path.suffix in PICKLES:
        return "a pickle, which can run code when it is read"
    if path.suffix == ".data" and path.parent.name != "onnx":
        return "no file of a model"
    return None if path.suffix in KNOWN else "no file of a model"


def check_servers(folder: Path, servers: Sequence[Server]) -> None:
    """Raise UserError naming the first fault where a server would not give the model's vectors."""
    bad = [f for f in check_folder(folder, servers) if f.answer.outcome in (Outcome.OTHER, Outcome.REFUSES)]
    if bad:
        first = bad[0]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(
            f"{folder}: {first.server.name}, {first.rule.name}: {first.answer.outcome.value}: "
            f"{first.answer.text}{more}; see `embedtrain serving {folder}`, and name with --server those "
            "that must load it"
        )


def check_proof(folder: Path) -> None:
    """Raise UserError where no parity.json says that the folder gives the vectors that were trained."""
    places = [folder.resolve() / place for place in PARITY_PLACES]
    proof = next((place.resolve() for place in places if place.is_file()), None)
    if proof is None:
        raise UserError(
            f"{folder}: no parity.json beside it or in onnx/: that it gives the trained vectors is not "
            "proved; an export stage and `embedtrain onnx` write one"
        )
    facts: dict[str, Any] = read_json(proof)
    distance, bound = facts.get("max_cosine_distance"), facts.get("bound")
    if distance is None or bound is None or not distance <= bound:
        raise UserError(f"{proof}: cosine distance {distance} is not within the bound {bound}")


def shown_bytes(size: int) -> str:
    """A size for a person."""
    if size < 1000:
        return f"{size} B"
    for unit, bytes_each in (("kB", 10**3), ("MB", 10**6)):
        if size < 1000 * bytes_each:
            shown = size / bytes_each
            return f"{shown:.0f} {unit}" if shown >= 100 else f"{shown:.1f} {unit}"
    return f"{size / 10**9:.2f} GB"


def send(uploads: Sequence[Upload], repo: str, *, private: bool, revision: str | None) -> str:
    """Make the repository where there is none and commit all files at once; the commit's address."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if get_token() is None:
        raise UserError("nobody is logged in: run `hf auth login`, or set HF_TOKEN")
    disable_progress_bars()
    api = HfApi()
    operations = [CommitOperationAdd(path_in_repo=u.name, path_or_fileobj=u.path) for u in uploads]
    try:
        name = whole_name(api, repo)
        api.create_repo(name, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        commit = api.create_commit(name, operations, commit_message=MESSAGE, revision=revision)
    except Exception as error:
        if (told := what_failed(error, api.endpoint, repo)) is None:
            raise
        raise UserError(told) from None
    return str(commit.commit_url)


def whole_name(api: "HfApi", repo: str) -> str:
    """`owner/name`; the owner is whoever is logged in where none is given."""
    return repo if "/" in repo else f"{api.whoami()['name']}/{repo}"


def what_failed(error: Exception, endpoint: str, repo: str) -> str | None:
    """What a user is told of a hub's or a network's error; None for any other."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # of one file, in a thread of its own
    if isinstance(error, HFValidationError):
        return f"--repo {repo}: {first_line(error)}"
    if isinstance(error, HfHubHTTPError):
        return f"{endpoint} refused the upload to {repo}: {first_line(error)}"
    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if kinds & set(HTTP_LIBRARIES) or isinstance(error, OSError):
        return f"{endpoint} cannot be reached: {first_line(error)}"
    return None


def first_line(error: Exception) -> str:
    """What the library says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
