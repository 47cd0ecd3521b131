"""The command `embedtrain show --texts`: each source's first rows as the model sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from embedtrain.config.check import sources_of
from embedtrain.config.schema import Run
from embedtrain.config.stages import Train
from embedtrain.data.examples import row_examples
from embedtrain.data.rows import Row, text_key
from embedtrain.data.store import open_source
from embedtrain.data.tokens.encode import encode
from embedtrain.model.encoder import EncoderSpec
from embedtrain.model.load import open_tokenizer
from embedtrain.text import Formatted, SourceText, format_document, format_query, source_text

SHOWN_NEGATIVES = 2
LIMITS = {"max_query_tokens", "max_document_tokens"}


@dataclass(frozen=True, slots=True)
class Written:
    """One text of a row: what it is there, its string, and its limit in tokens."""

    role: str
    formatted: Formatted
    max_tokens: int


def show_texts(run: Run, num_rows: int) -> None:
    """Print the strings and token ids of the first `num_rows` rows of every source that has a weight.

    Limits, and the examples before a query, are those of the first stage that trains on the source, at its
    first step. A text that is cut is shown up to where, with what is lost.
    """
    tokenizer, spec = open_tokenizer(run.base, run.encoder, run.text)
    print("\n".join(header(tokenizer, spec)))
    for name, source in run.sources.items():
        if source.weight > 0:
            rows = open_source(source, name, run.seed)
            how, seed = way_of(run, name, spec)
            print(f"\n{name}: the first {min(num_rows, len(rows)):,} of {len(rows):,} rows of {source.rows}")
            for number in range(min(num_rows, len(rows))):
                print(f"  row {number}")
                for written in write_row(rows, number, how, seed, tokenizer):
                    print("\n".join(describe(written, tokenizer, spec.pool_instruction)))


def header(tokenizer: Tokenizer, spec: EncoderSpec) -> Iterator[str]:
    """What holds for all texts."""
    encoding = tokenizer.encode("a")
    around = zip(encoding.tokens, encoding.special_tokens_mask, strict=True)
    special = " ".join(token if is_special else "text" for token, is_special in around)
    added = f"{special!r} (a cut text keeps them)" if any(encoding.special_tokens_mask) else "none"
    yield f"{spec.base}: special tokens around every text: {added}"
    pooled = (
        "all tokens" if spec.pool_instruction else "the tokens of the text, without what stands before it"
    )
    yield f"pooled: {pooled}"


def way_of(run: Run, name: str, spec: EncoderSpec) -> tuple[SourceText, int]:
    """How the first stage that trains on the source writes it, and the seed it draws examples with."""
    stages = (s for s in run.stages if isinstance(s, Train) and name in sources_of(run, s))
    stage = next(stages, None)
    limits = {} if stage is None else stage.model_dump(include=LIMITS, exclude_none=True)
    fmt = spec.text.model_copy(update=limits)
    seed = run.seed if stage is None or stage.seed is None else stage.seed
    return source_text(fmt, run.sources[name], run.seed), seed


def write_row(
    rows: Sequence[Row], number: int, how: SourceText, seed: int, tokenizer: Tokenizer
) -> Iterator[Written]:
    """The query, all positives and the first negatives of a row."""
    row = rows[number]
    examples = row_examples(rows, number, 0, seed, how, tokenizer)
    yield Written("query", format_query(how, row.query, row.instruction, examples), how.max_query_tokens)
    documents = [("positive", text) for text in row.positives]
    documents += [("negative", text) for text in row.negatives[:SHOWN_NEGATIVES]]
    for role, text in documents:
        formatted = format_document(how, text, text_key(text), row.instruction)
        yield Written(role, formatted, how.max_document_tokens)


def describe(written: Written, tokenizer: Tokenizer, pool_instruction: bool) -> Iterator[str]:
    """The counts, the string up to where it is cut, and the token ids."""
    text = written.formatted.text
    tokens, cut_T = encode(tokenizer, [written.formatted], [written.max_tokens], pool_instruction)
    facts = [f"{len(tokens.ids)} of at most {written.max_tokens} tokens"]
    if tokens.first_T[0]:
        facts.append(f"pooled from token {tokens.first_T[0]}")
    seen, lost = text, ""
    if cut_T[0]:
        room = written.max_tokens - tokenizer.num_special_tokens_to_add(is_pair=False)
        offsets = tokenizer.encode(text, add_special_tokens=False).offsets
        seen = text[: offsets[room - 1][1]]
        facts.append(f"CUT: {len(offsets) - room:,} tokens, {len(text) - len(seen):,} characters lost")
        lost = " …"
    yield f"    {written.role}: {', '.join(facts)}"
    yield f"      {seen!r}{lost}"
    yield f"      {' '.join(map(str, tokens.ids))}"
