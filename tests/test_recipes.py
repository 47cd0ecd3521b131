"""The shipped rows hold what their cards say, and no training text nearly equals a held-out or FAQ text."""

import json
import re
import struct
import zlib
from pathlib import Path

import pytest

from data_recipes import bible, clusters, debian, fetch, markup, output, wikipedia, wordnet
from embedtrain.artifacts import hash_file
from embedtrain.data.counts import count_rows
from embedtrain.data.rows import Row, read_rows

ROOT = Path(__file__).parent.parent

SETS = ("debian", "wikipedia", "wordnet", "bible", "pydoc", "usage")
ROWS = ROOT / "rows"


def texts_of(rows: list[Row]) -> list[str]:
    return [text for row in rows for text in (row.query, *row.positives)]


@pytest.mark.parametrize("name", SETS)
def test_cards_tell_counts_and_hashes_of_the_files(name: str) -> None:
    card = (ROWS / name / "card.md").read_text()
    for part in ("train", "test"):
        path = ROWS / name / f"{part}.parquet"
        line = next(line for line in card.splitlines() if line.startswith(f"| {part}.parquet"))
        assert int(line.split("|")[2]) == count_rows(path)
        assert hash_file(path) in line
    assert (ROWS / name / "LICENSE").stat().st_size > 100


@pytest.mark.parametrize("name", SETS)
def test_rows_are_clean_and_clipped(name: str) -> None:
    for part in ("train", "test"):
        rows = read_rows(ROWS / name / f"{part}.parquet")
        assert max(len(row.positives[0].split()) for row in rows) <= output.CLIP_WORDS
        assert not [row for row in rows if re.search("�|\x00|\\s\\s|^\\s", row.query + row.positives[0])]
        assert len({(row.query, row.positives) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", SETS)
def test_no_training_text_is_near_a_held_out_or_faq_text(name: str) -> None:
    train, test = (read_rows(ROWS / name / f"{part}.parquet") for part in ("train", "test"))
    held_out = [row.positives[0] for row in test]
    documents = [clusters.features(row.positives[0]) for row in train[::4]]
    for own in map(clusters.features, held_out[::40]):  # plain loops: nothing that hashing missed
        assert max(clusters.overlap(own, document) for document in documents) < 0.75
    faq = output.read_kept_out(ROWS / "tests" / "faq")
    assert len(faq) > 900
    assert not clusters.near_any(texts_of(train), held_out + faq)
    assert clusters.near_any([faq[3] + " really"], faq) == {0}


@pytest.mark.parametrize("name", ["faq", "debian", "wikipedia", "wordnet"])
def test_beir_folders_hold_together(name: str) -> None:
    folder = ROWS / "tests" / name
    corpus, queries = (
        {r["_id"]: r["text"] for r in map(json.loads, (folder / f).read_text().splitlines())}
        for f in ("corpus.jsonl", "queries.jsonl")
    )
    judged = [line.split("\t") for line in (folder / "qrels/test.tsv").read_text().splitlines()]
    assert judged[0] == ["query-id", "corpus-id", "score"]
    assert {query for query, *_ in judged[1:]} == set(queries)
    assert {document for _, document, _ in judged[1:]} <= set(corpus)
    assert len(set(corpus.values())) == len(corpus) >= 400
    assert min(len(text.split()) for text in corpus.values()) >= 4


def test_shipped_rows_stay_small() -> None:
    assert sum(path.stat().st_size for path in ROWS.rglob("*") if path.is_file()) < 6_000_000


def test_split_keeps_clusters_whole_and_does_not_depend_on_input_order() -> None:
    texts = [f"alpha beta gamma delta {n}" if n < 2 else f"word{n} other{n} third{n}" for n in range(40)]
    groups = [[n // 2 if n >= 20 else f"own {n}"] for n in range(40)]
    found = clusters.cluster(groups, texts)
    assert found[0] == found[1]
    assert len(set(found)) == 1 + 18 + 10
    train, test = clusters.split(found, [fetch.order_key(t) for t in texts], 100)
    assert sorted(train + test) == list(range(40))
    assert {found[n] for n in train}.isdisjoint(found[n] for n in test)
    backwards = clusters.cluster(groups[::-1], texts[::-1])
    _, again = clusters.split(backwards, [fetch.order_key(t) for t in texts[::-1]], 100)
    assert [texts[n] for n in test] == [texts[::-1][n] for n in again]


def test_near_pairs_find_what_plain_loops_find() -> None:
    words = [f"w{n}" for n in range(40)]
    texts = [" ".join(words[:n] + [f"x{n}"] * (n % 3)) for n in range(12, 40)]
    values = [clusters.features(text) for text in texts]
    expected = {
        (a, b) for b in range(len(texts)) for a in range(b) if clusters.overlap(values[a], values[b]) >= 0.9
    }
    assert len(expected) > 10
    assert set(clusters.near_pairs(texts, 0.9)) == expected


def test_debian_takes_the_paragraph_that_tells() -> None:
    raw = (
        " This package contains the development files of the library.\n .\n Gummi is an editor\n"
        " for LaTeX, with a live preview of\n the result . It also:\n  * lists things\n"
    )
    assert debian.telling(raw) == "Gummi is an editor for LaTeX, with a live preview of the result."
    assert debian.telling(" This package provides documentation for a thing that is very long.\n") is None
    stanza = next(fetch.read_stanzas("Package: a\nDescription-en: Title\n Line one\n .\n Two\n\nPackage: b"))
    assert stanza == {"Package": "a", "Description-en": "Title\n Line one\n .\n Two"}


def test_wordnet_lines_become_rows(tmp_path: Path) -> None:
    line = "00004258 03 n 02 living_thing 0 animate(a) 0 001 @ 00003553 n 0000 | "
    line += 'a living (or once living) entity; "every living thing must breathe"  \n'
    for part in wordnet.PARTS:
        (tmp_path / f"data.{part}").write_text("  1 licence\n" + (line if part == "noun" else ""))
    (synset,) = wordnet.read_synsets(tmp_path)
    row, (example,) = wordnet.make_rows(synset)
    assert (row.query, row.positives) == ("living thing, animate", ("a living (or once living) entity",))
    assert example.query == "every living thing must breathe"
    assert example.positives == ("living thing: a living (or once living) entity",)


def test_verses_are_read_from_a_sword_module(tmp_path: Path) -> None:
    entries = [
        '<chapter n="1" osisID="Matt.1" sID="x"/>',
        'The <w lemma="G1">book</w><note type="x">see <b>y</b></note> of Jesus. ',
        "",
        '<q>“Go</q>.”<lb type="x"/>Third',
    ]
    packed, places = "".join(entries).encode(), 0
    verses = b""
    for entry in entries:
        size = len(entry.encode())
        verses += struct.pack("<IIH", 0, places, size)
        places += size
    block = zlib.compress(packed)
    (tmp_path / "nt.bzz").write_bytes(block)
    (tmp_path / "nt.bzs").write_bytes(struct.pack("<III", 0, len(block), len(packed)))
    (tmp_path / "nt.bzv").write_bytes(verses)
    read = bible.read_verses(tmp_path / "nt")
    assert read == {("Matt.1", 1): "The book of Jesus.", ("Matt.1", 3): "“Go.” Third"}


def test_markup_becomes_plain_text() -> None:
    assert markup.plain_pod('Use C<< $x->y >>, L<perlop/"Bits"> or B<I<this>>E<gt>.X<index>') == (
        "Use $x->y, perlop Bits or this>."
    )
    rst = "See :func:`~shutil.copy`, ``x = 1``, *this* and `that <http://a>`_::"
    assert markup.plain_rst(rst) == "See copy, x = 1, this and that:"
    page = "Title\n=====\n\nFirst *one*.\n\n.. note::\n\n   hidden\n\nSub\n---\n\nSecond::\n\n    code()\n"
    sections = {title: list(markup.rst_paragraphs(lines)) for title, lines in markup.rst_sections(page)}
    assert sections == {"Title": ["First one."], "Sub": ["Second:"]}


def test_wikipedia_summaries_lose_phonetic_and_empty_brackets() -> None:
    assert wikipedia.clean("Qi (/tʃiː/; Chinese) is ( ; born 1) a  thing ().") == "Qi is (born 1) a thing."
