"""In-context examples with a real tokenizer: who stands before a query, and that no query is cut for it."""

import numpy as np
import pytest
from tiny_models import TEXTS, tiny_tokenizer

from embedtrain.config.errors import UserError
from embedtrain.config.schema import TextFormat
from embedtrain.config.sources import Source
from embedtrain.data.examples import count_tokens, cutter, prompt_examples, row_examples
from embedtrain.data.rows import Row
from embedtrain.text import SourceText, draw_examples, format_query, source_text

QUERY = "{examples}Instruct: {instruction}\nQuery: {text}\nResponse:"
WORDS = " ".join(TEXTS).split()


def few_shot_text(max_query_tokens: int = 512, **few_shot: object) -> SourceText:
    source = {"rows": "x", "query": QUERY, "instruction": "Find it", "few_shot": few_shot}
    fmt = TextFormat(max_query_tokens=max_query_tokens)
    return source_text(fmt, Source.model_validate(source))


def make_rows(number: int) -> list[Row]:
    rng = np.random.default_rng(0)
    return [
        Row(f"{i} " + " ".join(rng.choice(WORDS, 6)), (f"{i} is " + " ".join(rng.choice(WORDS, 9)),))
        for i in range(number)
    ]


def test_examples_of_a_row_are_the_drawn_rows() -> None:
    rows = make_rows(20)
    how = few_shot_text(4096, min_examples=3, max_examples=3, max_tokens=4096)
    written = row_examples(rows, 4, 11, 7, how, tiny_tokenizer(decoder=True))
    assert how.few_shot is not None
    drawn = draw_examples(7, 11, 4, 20, how.few_shot)
    assert len(drawn) == 3
    assert written == "".join(
        f"Instruct: Find it\nQuery: {rows[i].query}\nResponse: {rows[i].positives[0]}\n\n" for i in drawn
    )
    assert row_examples(rows, 4, 11, 7, source_text(TextFormat()), tiny_tokenizer(decoder=True)) == ""


@pytest.mark.parametrize("decoder", [True, False])
def test_the_whole_query_stays_within_its_limit(decoder: bool) -> None:
    """The longest examples that fit: one more would not, and no text of the query is lost."""
    rows, tokenizer = make_rows(20), tiny_tokenizer(decoder)
    everything = few_shot_text(10**6, min_examples=5, max_examples=5, max_tokens=10**6)
    numbers = set()
    for row_id in range(20):
        all_five = row_examples(rows, row_id, 0, 7, everything, tokenizer).split("\n\n")[:-1]
        assert len(all_five) == 5
        for limit in (40, 200, 400):
            how = few_shot_text(limit, min_examples=5, max_examples=5, max_tokens=300)
            examples = row_examples(rows, row_id, 0, 7, how, tokenizer)
            shown = examples.split("\n\n")[:-1]
            assert shown == all_five[: len(shown)]
            numbers.add(len(shown))
            alone = count_tokens(tokenizer, format_query(how, rows[row_id].query).text)
            whole = count_tokens(tokenizer, format_query(how, rows[row_id].query, examples=examples).text)
            assert whole <= max(limit, alone)
            more = "\n\n".join([*all_five[: len(shown) + 1], ""])
            too_long = count_tokens(tokenizer, more, special=False) > 300
            too_long |= (
                count_tokens(tokenizer, format_query(how, rows[row_id].query, examples=more).text) > limit
            )
            assert too_long
    assert len(numbers) > 2  # the premise: the limits tell rows apart


def test_a_row_that_gives_the_answer_away_is_no_example() -> None:
    rows = [Row("q", ("p",)), Row(" q ", ("x",)), Row("other", ("p ", "y")), Row("free", ("z",))]
    how = few_shot_text(10**6, min_examples=3, max_examples=3)
    assert row_examples(rows, 0, 0, 7, how, tiny_tokenizer(decoder=True)) == (
        "Instruct: Find it\nQuery: free\nResponse: z\n\n"
    )


def test_a_text_is_cut_to_so_many_tokens_and_not_inside_a_character() -> None:
    tokenizer = tiny_tokenizer(decoder=True)
    cut = cutter(tokenizer)
    for text in [*TEXTS, " ".join(TEXTS * 50), "日本語" * 40, "", "x" * 5000]:
        for max_tokens in (1, 2, 7, 30):
            short = cut(text, max_tokens)
            assert text.startswith(short)
            assert count_tokens(tokenizer, short, special=False) <= max_tokens
            if count_tokens(tokenizer, text, special=False) <= max_tokens:
                assert short == text
    long = " ".join(TEXTS * 50)
    assert count_tokens(tokenizer, cut(long, 30), special=False) == 30


def test_examples_of_a_prompt_are_fixed_and_all_there() -> None:
    rows, tokenizer = make_rows(20), tiny_tokenizer(decoder=True)
    how = few_shot_text(max_tokens=4096)
    written = prompt_examples(rows, 3, 7, "faq", how, tokenizer)
    assert written.count("Instruct: Find it\n") == 3
    assert prompt_examples(rows, 3, 7, "faq", how, tokenizer) == written
    assert prompt_examples(rows, 3, 8, "faq", how, tokenizer) != written


def test_prompts_that_cannot_be_made() -> None:
    rows, tokenizer = make_rows(3), tiny_tokenizer(decoder=True)
    for how, number, message in (
        (source_text(TextFormat()), 3, "source 'faq': has no few_shot, so there is no prompt with examples"),
        (few_shot_text(), 4, "source 'faq': found 3 rows, expected 4 for its examples"),
    ):
        with pytest.raises(UserError) as error:
            prompt_examples(rows, number, 7, "faq", how, tokenizer)
        assert str(error.value) == message
    short = few_shot_text(max_tokens=50)
    with pytest.raises(UserError, match=r"its 3 examples hold \d+ tokens, and few_shot.max_tokens is 50"):
        prompt_examples(rows, 3, 7, "faq", short, tokenizer)
