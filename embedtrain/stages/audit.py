"""The command `embedtrain audit`: rows in, a summary, audit.json and audit.html out."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from embedtrain.artifacts import write_atomic, write_json
from embedtrain.config.errors import UserError
from embedtrain.config.schema import Run
from embedtrain.data.audit.audit import SAMPLE_ROWS, AuditedSource, audit_stores
from embedtrain.data.audit.contamination import NGRAM_WORDS, index_test_texts
from embedtrain.data.audit.page import audit_page, print_audit
from embedtrain.data.audit.result import Audit
from embedtrain.data.audit.sample import CountTokens
from embedtrain.data.store import open_rows, open_source
from embedtrain.model.source import resolve_model
from embedtrain.model.tokens import end_token, load_tokenizer
from embedtrain.stages.held_out import read_test_texts
from embedtrain.text import source_text

JSON, PAGE = "audit.json", "audit.html"
TOKENS_BLOCK = 2048
PLAIN_NAMES = ("train", "rows", "data", "texts")


def audit_sources(
    run_or_paths: Run | Sequence[Path],
    test_data: Sequence[str | Path] = (),
    out: Path | None = None,
    sample: int = SAMPLE_ROWS,
    tokenizer: str | None = None,
) -> Audit:
    """Audit a run's sources, or files and folders of rows: print the summary; with `out`, write both files.

    `test_data` are folders or files of evaluation data whose texts no row should hold. `tokenizer` is a
    tokenizer.json, a folder or a model; for a run it is its base's where none is named. With a run the
    texts are counted as the model will see them, and what its limits cut is known.
    """
    if isinstance(run_or_paths, Run):
        sources, counter = run_sources(run_or_paths), open_counter(run_or_paths, tokenizer)
    else:
        sources, counter = path_sources(run_or_paths), open_counter(None, tokenizer)
    test = index_test_texts(read_test_texts(test_data), NGRAM_WORDS) if test_data else None
    audit = audit_stores(sources, test=test, count_tokens=counter, sample=sample)
    print_audit(audit)
    if out is not None:
        write_json(out / JSON, audit.to_json())
        write_atomic(out / PAGE, audit_page(audit))
        print(f"{out / PAGE} and {JSON} written")
    return audit


def run_sources(run: Run) -> dict[str, AuditedSource]:
    """The sources of a run that have a weight."""
    return {
        name: AuditedSource(
            Path(source.rows), open_source(source, name, run.seed), source_text(run.text, source, run.seed)
        )
        for name, source in run.sources.items()
        if source.weight > 0
    }


def path_sources(paths: Sequence[Path]) -> dict[str, AuditedSource]:
    """Sources named after their files, or the folders of those."""
    return {
        name: AuditedSource(path, open_rows(path))
        for name, path in zip(name_paths(paths), paths, strict=True)
    }


def name_paths(paths: Sequence[Path]) -> list[str]:
    """`rows/bible/train.parquet` is `bible`; paths whose names would be the same keep all of theirs."""
    names = []
    for path in paths:
        stem = path.name.split(".")[0]
        names.append(path.resolve().parent.name if stem in PLAIN_NAMES else stem)
    times = Counter(names)
    whole = [str(path) if times[name] > 1 else name for name, path in zip(names, paths, strict=True)]
    repeated = [name for name, number in Counter(whole).items() if number > 1]
    if repeated:
        raise UserError(f"{repeated[0]}: named twice; each file or folder of rows is audited once")
    return whole


def open_counter(run: Run | None, tokenizer: str | None) -> CountTokens | None:
    """Counts tokens by the tokenizer named, else as the run's base does; None where there is neither."""
    if tokenizer is not None:
        return count_with(open_tokenizer(tokenizer))
    if run is None:
        return None
    folder = resolve_model(run.base.model, revision=run.base.revision, sha256=run.base.sha256).path
    return count_with(load_tokenizer(folder, eos=end_token(folder) if run.encoder.append_eos else None))


def open_tokenizer(name: str) -> Tokenizer:
    """A tokenizer.json, or that of a folder or a model."""
    path = Path(name)
    return load_tokenizer(path.parent if path.is_file() else resolve_model(name).path)


def count_with(tokenizer: Tokenizer) -> CountTokens:
    """Counts the tokens of texts, special ones included."""

    def count(texts: list[str]) -> list[int]:
        starts = range(0, len(texts), TOKENS_BLOCK)
        blocks = (tokenizer.encode_batch_fast(texts[start : start + TOKENS_BLOCK]) for start in starts)
        return [len(encoding) for block in blocks for encoding in block]

    return count
