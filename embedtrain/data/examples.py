"""In-context examples of one source: which rows are shown before a query, and how much of them fits."""

from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from embedtrain.config.errors import UserError
from embedtrain.config.sources import FewShot
from embedtrain.data.rows import Row
from embedtrain.text import SourceText, draw_examples, fixed_examples, format_query, write_examples

CHARS_PER_TOKEN = 16  # more than texts have on average: the beginning that is tokenised first


def row_examples(
    rows: Sequence[Row], row_id: int, step: int, seed: int, how: SourceText, tokenizer: Tokenizer
) -> str:
    """What stands before the query of row `row_id` at this step: nothing where the source has no few_shot.

    Examples are added while they stay within `few_shot.max_tokens`, and the whole query within its limit, so
    that no query is cut to make room. A drawn row that shares the query or a positive with this one is left
    out: it would give the answer away.
    """
    if how.few_shot is None:
        return ""
    own = rows[row_id]
    drawn = (rows[number] for number in draw_examples(seed, step, row_id, len(rows), how.few_shot))
    others = [row for row in drawn if not gives_away(row, own)]
    return write_examples(others, how, cutter(tokenizer), room(own, how, how.few_shot, tokenizer))


def prompt_examples(
    rows: Sequence[Row], number: int, seed: int, name: str, how: SourceText, tokenizer: Tokenizer
) -> str:
    """The `number` examples of an exported prompt, drawn with the seed; UserError where they are too long."""
    if how.few_shot is None:
        raise UserError(f"source '{name}': has no few_shot, so there is no prompt with examples")
    shown = [rows[i] for i in fixed_examples(seed, len(rows), number)]
    examples = write_examples(shown, how, cutter(tokenizer), lambda _: True)
    count, most = count_tokens(tokenizer, examples, special=False), how.few_shot.max_tokens
    if len(shown) < number:
        raise UserError(f"source '{name}': found {len(shown)} rows, expected {number} for its examples")
    if count > most:
        raise UserError(
            f"source '{name}': its {number} examples hold {count} tokens, and few_shot.max_tokens is {most}; "
            "ask for fewer examples, or shorten them by max_query_tokens and max_response_tokens"
        )
    return examples


def gives_away(row: Row, own: Row) -> bool:
    """Whether the rows share their query, or a positive."""
    texts, others = ({text.strip() for text in one.positives} for one in (row, own))
    return row.query.strip() == own.query.strip() or not texts.isdisjoint(others)


def room(own: Row, how: SourceText, few_shot: FewShot, tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Whether examples leave room for the whole query of the row `own`."""

    def fits(examples: str) -> bool:
        whole = format_query(how, own.query, own.instruction, examples).text
        return (
            count_tokens(tokenizer, whole) <= how.max_query_tokens
            and count_tokens(tokenizer, examples, special=False) <= few_shot.max_tokens
        )

    return fits


def count_tokens(tokenizer: Tokenizer, text: str, special: bool = True) -> int:
    """Tokens of the text, with or without those that the tokenizer puts around it."""
    return len(tokenizer.encode(text, add_special_tokens=special).ids)


def cutter(tokenizer: Tokenizer) -> Callable[[str, int], str]:
    """A function that cuts a text to its beginning of at most so many tokens, never inside a character."""

    def cut(text: str, max_tokens: int) -> str:
        for part in (text[: max_tokens * CHARS_PER_TOKEN], text):
            offsets = tokenizer.encode(part, add_special_tokens=False).offsets
            if len(offsets) > max_tokens:
                return cut(part[: offsets[max_tokens][0]], max_tokens)
        return text

    return cut
