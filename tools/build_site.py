"""Builds the documentation site into build/site: `python tools/build_site.py`, or `make docs`.

The pages keep their places (README.md, ARCHITECTURE.md, docs/...), so that a link means the same in the
repository and on the site; whatever they link to is laid beside them. A link that leads nowhere, or to a
folder, is refused, as is every warning of the generator.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "docs" / "zensical.toml"
STARTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)[^)]*\)")


class BadLink(Exception):
    """A link of a page that the site cannot have."""


def links(page: Path) -> Iterator[Path]:
    """The files of this repository that a page links to, code blocks aside."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        yield (page.parent / target).resolve()


def site_files(root: Path) -> list[Path]:
    """The pages, and all that they link to, each once; raises BadLink."""
    found = [root / name for name in STARTS] + sorted((root / "docs").rglob("*"))
    found = [path for path in found if path.is_file() and path.suffix != ".toml"]
    for page in found:  # grows on the way
        for target in links(page) if page.suffix == ".md" else ():
            if not target.is_relative_to(root) or not target.is_file():
                shown = target.relative_to(root) if target.is_relative_to(root) else target.name
                raise BadLink(
                    f"{page.relative_to(root)}: links to {shown}; expected a file of the repository"
                )
            if target not in found:
                found.append(target)
    return found


def lay_out(root: Path, folder: Path) -> None:
    """The pages and the config in `folder`, where the generator finds them."""
    for name in ("pages", "site", ".cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in site_files(root):
        place = folder / "pages" / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    shutil.copyfile(CONFIG, folder / "zensical.toml")


def build(folder: Path, root: Path = ROOT) -> str:
    """Build the site into `folder`/site; returns what the generator says."""
    folder.mkdir(parents=True, exist_ok=True)
    lay_out(root, folder)
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--config-file",
        str(folder / "zensical.toml"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode or not (folder / "site" / "index.html").is_file():
        raise SystemExit(said)
    return said


def main() -> None:
    """Build it and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder for pages/ and site/")
    folder = parser.parse_args().out.resolve()
    try:
        build(folder)
    except BadLink as error:
        raise SystemExit(f"build_site: {error}") from None
    print(f"open {folder / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
