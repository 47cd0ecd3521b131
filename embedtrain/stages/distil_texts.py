"""Which texts a distil stage learns: those of rows and of files, each in each way that it is written, once.

A text is told by its key, whatever its side. A writing is the string that the student sees for a text on one
side, by the templates of one source. What is drawn to validate on is no text of training, on either side.

Dimensions: W writings, T different texts.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from embedtrain.artifacts import hash_bytes, hash_file, hash_json, write_json
from embedtrain.config.distilling import Distil
from embedtrain.config.errors import UserError
from embedtrain.data.rows import text_key
from embedtrain.data.store import RowStore
from embedtrain.data.store.arrays import ArrayFile
from embedtrain.data.store.build import Interner, exact_key
from embedtrain.data.store.keys import KeyTable
from embedtrain.data.tokens.cache import nothing_to_pool
from embedtrain.data.tokens.encode import encode
from embedtrain.data.tokens.entries import QUERY, Entries
from embedtrain.dist import current
from embedtrain.mining.given import Given, write_given
from embedtrain.mining.sharing import first_makes
from embedtrain.model.encoder import Encoder
from embedtrain.show.progress import progress
from embedtrain.stages.context import StageContext
from embedtrain.stages.opening import open_sources
from embedtrain.text import Formatted, SourceText, format_document, source_text
from embedtrain.train.taught import ARRAYS, FACTS, SIDES

TEXTS, GIVEN = "texts", "given"  # in the stage's folder, while it trains
LIMITS = {"max_query_tokens", "max_document_tokens"}
BLOCK = 1 << 10  # writings that are tokenised at once


class Origin(Protocol):
    """Where writings come from; nothing is read before it is asked for."""

    name: str
    keys_W: np.ndarray
    is_query_W: np.ndarray

    def read(self, places: np.ndarray) -> tuple[list[str], list[Formatted], list[int]]:
        """The texts of these writings, their strings, and to how many tokens each is cut."""


class SourceTexts:
    """Queries and positives of a source's rows, and negatives where wanted. Queries have no examples."""

    def __init__(self, name: str, rows: RowStore, how: SourceText, negatives: bool) -> None:
        """Find the writings, by the codes of `Entries`."""
        self.name, self.entries = name, Entries(rows, how, negatives)
        parts = [self.entries.query_codes(slice(None)), self._codes(rows.positive_starts, rows.positive_P)]
        if negatives:
            parts.append(self._codes(rows.negative_starts, rows.negative_Q))
        self.codes_W = np.unique(np.concatenate(parts))
        self.keys_W = rows.keys_M[self.codes_W // self.entries.num_forms]
        self.is_query_W = self.codes_W % 2 == QUERY

    def _codes(self, starts: np.ndarray, texts: np.ndarray) -> np.ndarray:
        return self.entries.document_codes(texts, np.repeat(np.arange(len(starts) - 1), np.diff(starts)))

    def read(self, places: np.ndarray) -> tuple[list[str], list[Formatted], list[int]]:
        """A row's own instruction wins over its source's."""
        codes = self.codes_W[places]
        return self.entries.rows.texts(codes // self.entries.num_forms), *self.entries.format(codes)


class FileTexts:
    """Documents from outside the rows, by the run's template of documents."""

    name = TEXTS

    def __init__(self, given: Given, how: SourceText) -> None:
        """Nothing is read yet."""
        self.given, self.how, self.keys_W = given, how, given.keys
        self.is_query_W = np.zeros(len(given.keys), bool)

    def read(self, places: np.ndarray) -> tuple[list[str], list[Formatted], list[int]]:
        """Every one to the run's limit of documents."""
        texts = [self.given.texts[place] for place in places.tolist()]
        keys = self.keys_W[places].tolist()
        strings = [format_document(self.how, text, key) for text, key in zip(texts, keys, strict=True)]
        return texts, strings, [self.how.max_document_tokens] * len(texts)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Sorted keys of the texts to learn and of those to validate on; none is in both."""

    training: np.ndarray
    held_out: np.ndarray


def collect_texts(context: StageContext, stage: Distil, encoder: Encoder, seed: int) -> Path:
    """The folder that `Taught` reads but for the vectors, made by the first process."""
    find = partial(write_drawn, context, stage, encoder, seed)
    return first_makes(context.folder / TEXTS, current(), find)


def write_drawn(context: StageContext, stage: Distil, encoder: Encoder, seed: int, folder: Path) -> None:
    """Draw the texts and write them into a folder of their own. Raises UserError where there are too few."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = list(origins(context, stage, encoder, folder))
    drawn = draw(found, stage, seed)
    num_writings = write_texts(found, drawn, encoder.tokenizer, encoder.spec.pool_instruction, folder)
    facts = {"texts": len(drawn.training), "held_out_texts": len(drawn.held_out), "writings": num_writings}
    contents = {name: hash_file(folder / f"{name}.npy") for name in ARRAYS}
    drawn_hash = hash_bytes(drawn.training.tobytes() + drawn.held_out.tobytes())
    write_json(folder / FACTS, facts | {"hash": hash_json([contents, drawn_hash])})
    shutil.rmtree(folder / GIVEN, ignore_errors=True)


def origins(context: StageContext, stage: Distil, encoder: Encoder, folder: Path) -> Iterator[Origin]:
    """The sources, then the files; the stage's token limits win over the run's."""
    limits = stage.model_dump(include=LIMITS, exclude_none=True)
    fmt, run = encoder.spec.text.model_copy(update=limits), context.run
    for name, rows in sources_of(context, stage).items():
        yield SourceTexts(name, rows, source_text(fmt, run.sources[name], run.seed), stage.negatives)
    if stage.texts:
        write_given(stage.texts, folder / GIVEN)
        yield FileTexts(Given(folder / GIVEN), source_text(fmt))


def sources_of(context: StageContext, stage: Distil) -> Mapping[str, RowStore]:
    """Rows by source; none is needed where there are files of texts."""
    weighted = any(source.weight > 0 for source in context.run.sources.values())
    if stage.texts and (stage.sources == () or not (stage.sources or weighted)):
        return {}
    return open_sources(context, stage)


def draw(found: Sequence[Origin], stage: Distil, seed: int) -> Drawn:
    """Texts drawn from all by the seed: first those to validate on, then those to learn."""
    keys_T = np.unique(np.concatenate([origin.keys_W for origin in found]))
    least = stage.held_out_texts + stage.batch_size
    if len(keys_T) < least:
        raise UserError(
            f"stage '{stage.name}': found {len(keys_T):,} different texts, expected at least {least:,}: "
            f"held_out_texts {stage.held_out_texts:,} and batch_size {stage.batch_size}; give it more, or "
            "lower held_out_texts"
        )
    keys_T = np.random.default_rng(seed).permutation(keys_T)
    end = None if stage.max_texts is None else stage.held_out_texts + stage.max_texts
    return Drawn(np.sort(keys_T[stage.held_out_texts : end]), np.sort(keys_T[: stage.held_out_texts]))


def write_texts(
    found: Sequence[Origin], drawn: Drawn, tokenizer: Tokenizer, pool_instruction: bool, folder: Path
) -> int:
    """Write tokens and places of all drawn writings, and each side's texts for the teacher; how many."""
    chosen = [(one, np.flatnonzero(held_in(one.keys_W, drawn) >= 0)) for one in found]
    total = sum(len(places) for _, places in chosen)
    with ExitStack() as stack, progress("tokenise texts", total=total, unit="text") as bar:
        writer = stack.enter_context(closing(Writer(folder, drawn, tokenizer, pool_instruction)))
        for origin, places in chosen:
            for start in range(0, len(places), BLOCK):
                block = places[start : start + BLOCK]
                writer.add(origin, block)
                bar.advance(len(block))
    return len(writer.seen)


def held_in(keys: np.ndarray, drawn: Drawn) -> np.ndarray:
    """1 for keys to validate on, 0 for those to learn, -1 for what was not drawn (int8)."""
    held = np.full(len(keys), -1, np.int8)
    held[np.isin(keys, drawn.training)] = 0
    held[np.isin(keys, drawn.held_out)] = 1
    return held


class Writer:
    """Appends writings to the files that `Taught` reads."""

    def __init__(self, folder: Path, drawn: Drawn, tokenizer: Tokenizer, pool_instruction: bool) -> None:
        """Start empty."""
        self.drawn, self.tokenizer, self.pool_instruction = drawn, tokenizer, pool_instruction
        self.seen = KeyTable(folder / "writings.table")
        self.sides = [Interner(folder, side, text_key) for side in SIDES]
        self.arrays = {name: ArrayFile(folder / f"{name}.npy", kind) for name, kind in ARRAYS.items()}

    def add(self, origin: Origin, places: np.ndarray) -> None:
        """Append those of the writings that no origin had before."""
        texts, strings, limits = origin.read(places)
        side_W = np.where(origin.is_query_W[places], 0, 1)
        keys = [exact_key(f"{side}{f.text}") for side, f in zip(side_W.tolist(), strings, strict=True)]
        fresh = self.seen.add(np.array(keys, np.int64))[1]
        self._tokenise(origin.name, [strings[i] for i in fresh], [limits[i] for i in fresh])
        rows_W = np.empty(len(fresh), np.int64)
        for number, interner in enumerate(self.sides):
            own = np.flatnonzero(side_W[fresh] == number)
            rows_W[own] = interner.add([texts[i] for i in fresh[own]])
        self.arrays["sides"].add(side_W[fresh])
        self.arrays["rows"].add(rows_W)
        self.arrays["held_out"].add(held_in(origin.keys_W[places[fresh]], self.drawn))

    def _tokenise(self, name: str, strings: Sequence[Formatted], limits: Sequence[int]) -> None:
        tokens, _ = encode(self.tokenizer, strings, limits, self.pool_instruction)
        for place in tokens.unpooled[:1].tolist():
            raise nothing_to_pool(name, strings[place].text, limits[place])
        for array, values in (("ids", tokens.ids), ("lengths", tokens.lengths_T), ("firsts", tokens.first_T)):
            self.arrays[array].add(values)

    def close(self) -> None:
        """Finish the files."""
        self.seen.close()
        for interner in self.sides:
            interner.close()
        for array in self.arrays.values():
            array.close()
