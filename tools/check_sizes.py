"""Refuse files over 300 lines and functions over 80 (docstring included): `python tools/check_sizes.py`.

Prints every offender, then the median and 90th percentile of the functions of the package; exits 1 on any.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("embedtrain", "data_recipes", "tools", "tests")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 80
LENGTH_FOR_REPORT = "embedtrain"


def python_files(root: Path) -> Iterator[Path]:
    """Every Python file of the folders that are held to the sizes."""
    for folder in FOLDERS:
        yield from sorted((root / folder).rglob("*.py"))


def functions(source: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, number of lines) of each function, from its first decorator."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield node.name, first, (node.end_lineno or node.lineno) - first + 1


def offences(path: Path, source: str) -> list[str]:
    """What in one file is too long."""
    lines = len(source.splitlines())
    found = [f"{path}: {lines} lines, at most {MAX_FILE_LINES}"] if lines > MAX_FILE_LINES else []
    return found + [
        f"{path}:{first}: function '{name}' has {length} lines, at most {MAX_FUNCTION_LINES}"
        for name, first, length in functions(source)
        if length > MAX_FUNCTION_LINES
    ]


def main(root: Path) -> int:
    """Check every file below `root`; 1 if anything is too long."""
    sources = {path.relative_to(root): path.read_text(encoding="utf-8") for path in python_files(root)}
    found = [line for path, source in sources.items() for line in offences(path, source)]
    lengths = [
        length
        for path, source in sources.items()
        if path.parts[0] == LENGTH_FOR_REPORT
        for _, _, length in functions(source)
    ]
    for line in found:
        print(line)
    if not lengths:
        print(f"no function found below {root / LENGTH_FOR_REPORT}: wrong folder?")
        return 1
    ninetieth = sorted(lengths)[int(0.9 * (len(lengths) - 1))]
    print(
        f"sizes: {len(sources)} files, median function {statistics.median(lengths):g} lines, p90 {ninetieth}"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
