"""Token ids on disk: every string of a source is tokenised once, and read as slices of memory maps.

A cache is a folder named by the hash of all that its ids depend on: the tokenizer, the templates and limits,
and the rows. It holds a shard for every 32,768 texts of the rows: ids end to end (uint16 where the vocabulary
allows, else uint32) and what tells its entries apart. A build that was killed goes on after its last whole
shard.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from embedtrain.artifacts import DONE, hash_bytes, hash_json, is_done, mark_done, read_json
from embedtrain.config.errors import UserError
from embedtrain.data.tokens.encode import Tokens, encode
from embedtrain.data.tokens.entries import Entries, merge_runs
from embedtrain.data.tokens.shards import Encoded, open_shard, shard_files, write_shard
from embedtrain.places import locked
from embedtrain.show.progress import progress

FORMAT = 1
TEXTS_PER_SHARD = 1 << 15
ENTRIES_PER_BLOCK = 1 << 10  # tokenised at once


class TokenCache:
    """Tokens of a source's rows, read from a finished folder."""

    def __init__(self, folder: Path, entries: Entries) -> None:
        """Map the shards; nothing is read yet."""
        marker = read_json(folder / DONE)
        self.entries, self.facts, dtype = entries, marker["facts"], np.dtype(marker["dtype"])
        self.shards = [open_shard(folder, number, dtype) for number in range(num_shards(entries))]

    def queries(self, rows_B: Sequence[int]) -> Tokens:
        """Of the queries of these rows."""
        return self._read(self.entries.query_codes(np.asarray(rows_B, np.int64)))

    def documents(self, rows_C: Sequence[int], places_C: Sequence[int]) -> Tokens:
        """Of documents, by row and by place among the row's positives and then its negatives."""
        return self._read(self.entries.place_codes(*np.array([rows_C, places_C], np.int64)))

    def _read(self, codes_T: np.ndarray) -> Tokens:
        span = codes_per_shard(self.entries)
        found = [self.shards[code // span].entry(code) for code in codes_T.tolist()]
        ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in found)], dtype=np.int32)
        lengths_T = np.array([len(ids) for ids, _ in found], np.int64)
        return Tokens(ids, lengths_T, np.array([first for _, first in found], np.int64))


def open_tokens(
    entries: Entries, tokenizer: Tokenizer, pool_instruction: bool, cache: Path, name: str
) -> TokenCache:
    """The tokens of the source `name`, made now where the folder `cache` lacks them.

    One process makes them, the others wait for its lock. Raises UserError where a text keeps no token to pool
    within its limit.
    """
    folder = cache / identify(entries, tokenizer, pool_instruction)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not is_done(folder):
            build_cache(entries, tokenizer, pool_instruction, folder, name)
    return TokenCache(folder, entries)


def identify(entries: Entries, tokenizer: Tokenizer, pool_instruction: bool) -> str:
    """A hash of all that the ids depend on."""
    text = asdict(entries.text)
    few_shot, seed = text.pop("few_shot"), text.pop("seed")
    depends_on = {
        "format": [FORMAT, TEXTS_PER_SHARD],
        "tokenizer": hash_bytes(tokenizer.to_str().encode()),
        "text": text,
        "seed": seed if entries.text.instructed_documents_fraction else None,
        "queries": few_shot is None,
        "negatives": entries.negatives,
        "pool_instruction": pool_instruction,
        "rows": entries.rows.hash,
    }
    return hash_json(depends_on)[:32]


def build_cache(
    entries: Entries, tokenizer: Tokenizer, pool_instruction: bool, folder: Path, name: str
) -> None:
    """Write the shards that are missing, then the marker with their counts."""
    dtype = np.dtype(np.uint16 if max(tokenizer.get_vocab().values()) < 1 << 16 else np.uint32)
    runs, span = entries.write_runs(folder), codes_per_shard(entries)
    missing = [n for n in range(num_shards(entries)) if not shard_files(folder, n)[1].exists()]
    sizes = [min(TEXTS_PER_SHARD, len(entries.rows.keys_M) - n * TEXTS_PER_SHARD) for n in missing]
    speaks = sys.stderr  # one process builds, whichever it is
    with progress(f"tokenise {name}", total=sum(sizes), unit="text", stream=speaks) as bar:
        for number, size in zip(missing, sizes, strict=True):
            codes_E = merge_runs(runs, number * span, (number + 1) * span)
            blocks = encode_blocks(entries, codes_E, tokenizer, pool_instruction, name)
            write_shard(folder, number, dtype, codes_E, blocks)
            bar.advance(size)
    for run in folder.glob("run.*.npy"):
        run.unlink()
    facts = count(folder, num_shards(entries), dtype)
    mark_done(folder, {"dtype": dtype.name, "facts": facts})
    counts = "{strings:,} strings, {tokens:,} tokens, {cut:,} strings cut to their limit".format(**facts)
    print(f"tokenise {name}: {counts}", file=speaks)


def encode_blocks(
    entries: Entries, codes_E: np.ndarray, tokenizer: Tokenizer, pool_instruction: bool, name: str
) -> Iterator[Encoded]:
    """Block by block, the tokens of entries, and whether each was cut."""
    for start in range(0, len(codes_E), ENTRIES_PER_BLOCK):
        strings, limits = entries.format(codes_E[start : start + ENTRIES_PER_BLOCK])
        tokens, cut_T = encode(tokenizer, strings, limits, pool_instruction)
        for place in tokens.unpooled[:1].tolist():
            raise nothing_to_pool(name, strings[place].text, limits[place])
        yield tokens, cut_T


def nothing_to_pool(name: str, text: str, limit: int) -> UserError:
    """What is said of a text of the source `name` that keeps no token of its own."""
    return UserError(
        f"source '{name}': no token of {text[:80]!r} is left to pool within {limit} tokens; mend the text, "
        "shorten the instruction or raise the limit"
    )


def count(folder: Path, number: int, dtype: np.dtype) -> dict[str, int]:
    """Strings, tokens and cut strings of all shards."""
    shards = [open_shard(folder, n, dtype) for n in range(number)]
    return {
        "strings": sum(len(shard.code_E) for shard in shards),
        "tokens": sum(len(shard.ids) for shard in shards),
        "cut": sum(int(shard.cut_E.sum()) for shard in shards),
    }


def num_shards(entries: Entries) -> int:
    """Shards of all texts."""
    return -(-len(entries.rows.keys_M) // TEXTS_PER_SHARD)


def codes_per_shard(entries: Entries) -> int:
    """Shard n holds the codes from n times this number."""
    return TEXTS_PER_SHARD * entries.num_forms
