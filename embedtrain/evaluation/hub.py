"""Retrieval folders as they lie on the hub: corpus/, queries/ and qrels/ of parquet files, one a split.

Schemas: `_id` and `text` (perhaps `title`) in corpus and queries, `query-id`, `corpus-id` and perhaps `score`
in qrels, `query-id` and `corpus-ids` in top_ranked, as mteb 2.26 reads them
(abstasks/retrieval_dataset_loaders.py). NanoBEIR has no scores, and in one of its forms a split a task, as
sentence-transformers 6.2 reads it (sentence_transformer/evaluation/nano_beir.py). Files are named
SPLIT-00000-of-00001.parquet, as the cards of such sets show (hakari-bench/NanoMedical).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedtrain.config.errors import UserError
from embedtrain.evaluation.beir import by_id, document_text, make_retrieval, record_qrels
from embedtrain.evaluation.records import Record, is_data_file, read_records
from embedtrain.evaluation.tasks import Reranking, Retrieval, Task, take

PARTS: Mapping[str, tuple[str, ...]] = {
    "corpus": ("corpus",),
    "queries": ("queries", "query"),
    "qrels": ("qrels", "default"),
}
"""What a task is made of, and the folders that hold it."""
SPLITS = ("test", "dev", "validation", "train")
SHARD = re.compile(r"-\d+-of-\d+$")
Files = dict[str, list[Path]]


def is_hub(folder: Path) -> bool:
    """Whether a folder has two of the three parts; all must then be there."""
    return sum(bool(find_part(folder, part)) for part in PARTS) > 1


def find_part(folder: Path, part: str) -> Files:
    """The files of a part by split; none where it is not there."""
    for name in PARTS.get(part, (part,)):
        files: Files = {}
        for path in sorted((folder / name).glob("*")) if (folder / name).is_dir() else ():
            if is_data_file(path):
                files.setdefault(split_of(path), []).append(path)
        if files:
            return files
    return {}


def split_of(path: Path) -> str:
    """`train` of train-00000-of-00001.parquet."""
    return SHARD.sub("", path.name.removesuffix(".gz").rpartition(".")[0])


def read_hub(folder: Path) -> list[Task]:
    """The task of a folder, named after it, or where its splits are other tasks, one of each split."""
    found = {part: find_part(folder, part) for part in PARTS}
    if missing := [f"{part}/*.parquet" for part, files in found.items() if not files]:
        raise UserError(
            f"{folder}: looks like a retrieval folder of parquet files, but {', '.join(missing)} is missing"
        )
    known = [split for split in SPLITS if split in found["qrels"]]
    if known:
        return [read_split(folder, folder.resolve().name, known[0], found)]
    return [read_split(folder, split, split, found) for split in found["qrels"]]


def read_split(folder: Path, name: str, split: str, found: Mapping[str, Files]) -> Retrieval | Reranking:
    """The task of one split; where documents are listed for its queries, they are put in order."""
    rows = {part: read_part(folder, part, split, files) for part, files in found.items()}
    queries = by_id(rows["queries"], lambda record: record.text("text"))
    documents = by_id(rows["corpus"], document_text)
    judged = record_qrels(rows["qrels"])
    task = make_retrieval(name, str(found["qrels"][split][0]), folder, queries, documents, judged)
    listed = find_part(folder, "top_ranked")
    return make_reranking(task, read_part(folder, "top_ranked", split, listed)) if listed else task


def read_part(folder: Path, part: str, split: str, files: Files) -> list[Record]:
    """The rows of a split, or those of the only split there is."""
    if split not in files and len(files) > 1:
        raise UserError(
            f"{folder / part}: no split '{split}', which the judgments have; found {', '.join(files)}"
        )
    paths = files.get(split) or next(iter(files.values()))
    return [record for path in paths for record in read_records(path)]


def make_reranking(task: Retrieval, listed: Sequence[Record]) -> Reranking:
    """The same queries, each with the documents listed for it."""
    known, candidates = set(task.document_ids), dict[str, tuple[str, ...]]()
    for record in listed:
        names = tuple(dict.fromkeys(record.texts("corpus-ids")))
        if absent := [name for name in names if name not in known]:
            raise UserError(f"{record.place}: document '{absent[0]}' is not in corpus/")
        candidates[record.name("query-id")] = names
    if absent := [name for name in task.query_ids if name not in candidates]:
        raise UserError(f"task '{task.name}': no documents are listed for query '{absent[0]}' in top_ranked/")
    wanted = {name for query in task.query_ids for name in candidates[query]}
    documents = [row for row, name in enumerate(task.document_ids) if name in wanted]
    return Reranking(
        name=task.name,
        query_ids=task.query_ids,
        queries=task.queries,
        document_ids=take(task.document_ids, documents),
        documents=take(task.documents, documents),
        candidates={name: candidates[name] for name in task.query_ids},
        judged=task.judged,
    )
