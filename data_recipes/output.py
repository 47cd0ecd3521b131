"""What recipes write: rows, their card and licence, and test folders in BEIR layout."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from data_recipes.clusters import near_any
from data_recipes.fetch import say
from data_recipes.registry import ROOT
from embedtrain.artifacts import hash_file, write_atomic
from embedtrain.data.formats.beir import write_beir
from embedtrain.data.rows import Row, write_rows

CLIP_WORDS = 60


@dataclass(frozen=True)
class Card:
    """What a reader should know of a set. `recipe`: the module; `origins`: raw files with their hashes."""

    recipe: str
    overlap: str
    title: str
    origins: Sequence[str]
    licence: str
    made: str
    split: str
    date: str
    words: int = CLIP_WORDS


def clip(text: str, words: int = CLIP_WORDS) -> str:
    """The first words of a text, white space made single."""
    return " ".join(text.split()[:words])


def tidy(text: str) -> str:
    """White space made single, none before punctuation."""
    return re.sub(r"\s+([,.;:?!)])(?=\s|$)", r"\1", " ".join(text.split()))


def faq_folder(out: Path) -> Path:
    """The FAQ test set beside a set or, where there is none, the shipped one."""
    beside = out.parent / "tests" / "faq"
    return beside if beside.is_dir() else ROOT / "rows" / "tests" / "faq"


def read_kept_out(folder: Path) -> list[str]:
    """Texts of the FAQ test set, which no training text may contain."""
    files = [folder / name for name in ("queries.jsonl", "corpus.jsonl")]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise SystemExit(f"{missing[0]}: no such file; run `python -m data_recipes build faq` first")
    return [json.loads(line)["text"] for path in files for line in path.read_text().splitlines()]


def drop_kept_out(rows: Sequence[Row], kept_out: Sequence[str]) -> list[Row]:
    """Rows, each once, none of whose texts nearly equals a kept-out text."""
    texts = [(number, text) for number, row in enumerate(rows) for text in (row.query, *row.positives)]
    near = near_any([text for _, text in texts], kept_out)
    hit = {texts[position][0] for position in near}
    kept = {(row.query, row.positives): row for number, row in enumerate(rows) if number not in hit}
    return list(kept.values())


def write_set(out: Path, train: Sequence[Row], test: Sequence[Row], card: Card, licence: str) -> None:
    """Write train.parquet, test.parquet, card.md and LICENSE, without rows that touch the FAQ test set."""
    kept = drop_kept_out(train, read_kept_out(faq_folder(out)))
    apart = drop_kept_out(kept, [text for row in test for text in row.positives])
    parts = {"train": apart, "test": list(test)}
    for name, rows in parts.items():
        write_rows(out / f"{name}.parquet", rows)
    write_atomic(out / "LICENSE", licence.rstrip() + "\n")
    write_atomic(out / "card.md", card_text(card, out, parts, len(train) - len(kept), len(kept) - len(apart)))
    say(f"{out}: {len(apart)} training rows, {len(test)} test rows")


def card_text(
    card: Card, out: Path, parts: Mapping[str, Sequence[Row]], near_faq: int, near_test: int
) -> str:
    """The card, as Markdown."""
    dropped = (
        "Training rows dropped for a text that nearly equals (overlap 0.5) one of the FAQ test set: "
        f"{near_faq}; a held-out document, or for being there twice: {near_test}."
    )
    chapters = {
        "Origin": "\n".join(f"- {line}" for line in card.origins),
        "Licence": card.licence,
        "MTEB overlap": card.overlap,
        "How it was made": f"{card.made}\nDocuments are clipped to their first {card.words} words.",
        "Split": f"{card.split}\n{dropped}",
    }
    lines = [f"# {card.title}", "", f"Made {card.date} by `{card.recipe.replace('.', '/')}.py`.", ""]
    for heading, text in chapters.items():
        lines += [f"## {heading}", "", text, ""]
    lines += ["| file | rows | mean words of query | of positive | SHA-256 |", "|---|---:|---:|---:|---|"]
    for name, rows in parts.items():
        query, positive = (mean(len(t.split()) for t in texts) for texts in columns(rows))
        digest = hash_file(out / f"{name}.parquet")
        lines.append(f"| {name}.parquet | {len(rows)} | {query:.1f} | {positive:.1f} | `{digest}` |")
    return "\n".join(lines) + "\n"


def columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Queries and first positives."""
    return [row.query for row in rows], [row.positives[0] for row in rows]


def write_retrieval(folder: Path, rows: Sequence[Row], num_queries: int, more: Iterable[str] = ()) -> None:
    """A BEIR folder: the first `num_queries` rows ask; the positives of all rows and `more` are documents."""
    shutil.rmtree(folder, ignore_errors=True)
    ids: dict[str, str] = {}
    for text in [*(text for row in rows for text in row.positives), *more]:
        ids.setdefault(text, f"d{len(ids)}")
    queries: dict[str, set[str]] = {}
    for row in rows[:num_queries]:
        queries.setdefault(row.query, set()).update(ids[text] for text in row.positives)
    asked = [(f"q{number}", query) for number, query in enumerate(queries)]
    write_beir(
        folder,
        documents=((name, text) for text, name in ids.items()),
        queries=asked,
        judged=((name, document) for name, query in asked for document in sorted(queries[query])),
    )
    say(f"{folder}: {len(asked)} queries, {len(ids)} documents")


def write_jsonl(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line."""
    write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def psf_licence(folder: Path) -> str:
    """Python's licence from the extracted python3.11-doc package."""
    text = next(folder.rglob("license.rst.txt")).read_text()
    text = text[text.index("PSF LICENSE AGREEMENT") : text.index("BEOPEN.COM LICENSE AGREEMENT")]
    text = re.sub(r"^\.\. .*$", "", text.replace("|release|", "3.11"), flags=re.MULTILINE)
    return f"Copyright (c) 2001-2023 Python Software Foundation; All Rights Reserved\n\n{text.strip()}\n"
