"""Recipes of sets that are built on demand read what their packages hold, and keep clear of test texts."""

import gzip
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_recipes import (
    built,
    clusters,
    descriptions,
    dictd,
    ding,
    fetch,
    foldoc,
    gcide,
    jargon,
    manpages,
    messages,
    pages,
    roff,
    usage,
    wikipedia_all,
    wordnet_all,
)
from data_recipes.output import Card
from data_recipes.registry import ROOT, local_recipes
from embedtrain.config.errors import UserError
from embedtrain.data.rows import Row, read_rows

PAGE = r""".TH pump 7
.SH NAME
pump, pumps \- move water \fIuphill\fP
.SH SYNOPSIS
.nf
hidden code
.fi
.SH DESCRIPTION
.\" a comment
The
.BR pump (7)
moves water with a "\-\-force" of
.I many
.IR litres ,
and it never stops\&.
.PP
Options are:
.TS
hidden table
.TE
.TP
.B \-v
says more.
.SH BUGS
None.
"""


def write_dictionary(folder: Path, name: str, entries: Sequence[tuple[list[str], bytes]]) -> Path:
    """A package folder with a dictionary; each entry is named by its terms."""
    digits, lines, content = list(dictd.DIGITS), [], b""
    for terms, entry in entries:
        place, size = (digits[n // 64] + digits[n % 64] for n in (len(content), len(entry)))
        lines += [f"{term}\t{place}\t{size}" for term in terms]
        content += entry
    (folder / "usr/share/dictd").mkdir(parents=True)
    (folder / f"usr/share/dictd/{name}.index").write_text("\n".join(lines) + "\n")
    (folder / f"usr/share/dictd/{name}.dict.dz").write_bytes(gzip.compress(content))
    return folder


def test_entries_of_a_dictionary_come_once_with_their_own_term(tmp_path: Path) -> None:
    entries = [(["00-database-info"], b"about"), (["bus bar", "Bus"], b"Bus\n long car\n")]
    entries.append((["\xe9"], b"\xe9\n letter\n"))
    folder = write_dictionary(tmp_path, "words", entries)
    assert list(dictd.read_entries(folder, "words")) == [
        ("Bus", "Bus\n long car\n"),
        ("é", "é\n letter\n"),
    ]
    assert dictd.number("Fz") == 5 * 64 + 51


def test_words_of_gcide_gather_their_entries(tmp_path: Path) -> None:
    noun = (
        b"Bus \\Bus\\ (b[u^]s), n.; pl. {Buses}. [Abbrev. from {omnibus} [L.].]\n   1. A long car that"
        b' carries many people.\n      "Any omnibus." --J. C. Shairp. -- {Bus"less*ly}, adv.\n'
        b"      [1913 Webster]\n"
    )
    verb = b"Bus \\Bus\\, v. t.\n   To carry in a bus at -3[deg].\n"
    short = b"Bused \\Bused\\, a.\n   See {Bus}.\n"
    folder = write_dictionary(tmp_path, "gcide", [(["Bus"], noun), (["Bus"], verb), (["Bused"], short)])
    (found,) = gcide.read_words(folder)
    texts = ('A long car that carries many people. "Any omnibus."', "To carry in a bus at -3°.")
    assert found == ("bus", Row("Bus", texts, task="retrieval"))


def test_terms_of_jargon_and_foldoc_lose_their_marks(tmp_path: Path) -> None:
    entry = b"BSD\n /B.S.D/, n.\n\n    A family of {\n    Unix} versions that came from Berkeley long ago.\n"
    folder = write_dictionary(tmp_path / "j", "jargon", [(["bsd"], entry)])
    ((_, row),) = jargon.read_terms(folder)
    assert row.positives == ("A family of Unix versions that came from Berkeley long ago.",)
    entry = (
        b"BSD\n\n   <operating system> A family of {Unix} versions that came from far.\n\n   (1996-01-22)\n"
    )
    folder = write_dictionary(tmp_path / "f", "foldoc", [(["BSD"], entry)])
    ((_, row),) = foldoc.read_terms(folder)
    assert row == Row("BSD", ("A family of Unix versions that came from far.",), task="retrieval")


def test_a_manual_page_gives_its_summary_and_description(tmp_path: Path) -> None:
    sections = roff.man_sections(PAGE)
    assert sections["NAME"] == ["pump, pumps - move water uphill"]
    assert sections["SYNOPSIS"] == []
    text = 'The pump(7) moves water with a "--force" of many litres, and it never stops.'
    assert sections["DESCRIPTION"] == [text, "Options are:", "-v says more."]
    path = tmp_path / "pump.7.gz"
    path.write_bytes(gzip.compress(PAGE.encode()))
    (row,) = manpages.read_page(path)
    assert row == Row("move water uphill", (f"{text} -v says more.",), label="7", task="retrieval")
    path.write_bytes(gzip.compress(b".so man7/pipe.7\n"))
    assert list(manpages.read_page(path)) == []


def test_sections_of_a_page_are_headings_with_their_paragraphs(tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten eleven"
    (tmp_path / "a.html").write_text(
        f"<p>Above.</p><h1>25.1. Vacuum</h1><p>It <b>cleans</b>\n {words}.</p><table><p>hidden</p></table>"
        f"<h3>Note</h3><p>{words} twelve</p><h2>Plan</h2><pre>code</pre><p>A {words}</p><p>&amp; more</p>"
        "<h2>Short</h2><p>Too few words.</p>"
    )
    found = list(pages.read_pages([tmp_path / "a.html"]))
    assert found == [
        ("a.html", Row("Vacuum", (f"It cleans {words}.",), task="retrieval")),
        ("a.html", Row("Vacuum: Plan", (f"A {words} & more",), task="retrieval")),
    ]


def catalogue(order: str, pairs: Sequence[tuple[str, str]]) -> bytes:
    """A `.mo` file."""
    texts = [text.encode() for column in zip(*pairs, strict=True) for text in column]
    tables, start = b"", 28 + 8 * len(texts)
    for text in texts:
        tables += struct.pack(order + "2I", len(text), start)
        start += len(text) + 1
    head = struct.pack(order + "7I", messages.MAGIC, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return head + tables + b"".join(text + b"\0" for text in texts)


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages_are_read_from_catalogues(tmp_path: Path, order: str) -> None:
    pairs = [
        ("", "Language: de"),
        ("menu\4E_xit the whole program now", "Jetzt alles auf einmal _beenden (_B)"),
        ("%d old\n  file was removed\0%d files", "%d alte Datei entfernt\0%d Dateien"),
        ("too short here", "zu kurz"),
        ("the same in both of them", "the same in both of them"),
    ]
    path = tmp_path / "usr/share/locale/de/LC_MESSAGES/git.mo"
    path.parent.mkdir(parents=True)
    path.write_bytes(catalogue(order, pairs))
    rows = [row for _, row in messages.read_pairs([tmp_path], "de")]
    assert [(row.query, row.positives[0], row.label) for row in rows] == [
        ("E_xit the whole program now", "Jetzt alles auf einmal beenden", "git"),
        ("%d old file was removed", "%d alte Datei entfernt", "git"),
    ]
    path.write_bytes(b"not one!" * 9)
    with pytest.raises(UserError, match=r"git\.mo: not a catalogue of messages; found b'not '"):
        list(messages.read_catalogue(path))


def test_descriptions_are_joined_by_the_hash_of_the_english_text(tmp_path: Path) -> None:
    lists = {
        "binary-amd64_Packages": "Package: libzip4\nSource: libzip\nDescription-md5: aa\nSection: libs\n",
        "i18n_Translation-en": "Package: libzip4\nDescription-md5: aa\nDescription-en: library for zip"
        " files\n It reads.\n\nPackage: b\nDescription-md5: bb\nDescription-en: two words\n",
        "i18n_Translation-pt%5fBR": "Package: libzip4\nDescription-md5: aa\nDescription-pt_BR: biblioteca"
        " zip\n Ela\n\nPackage: b\nDescription-md5: bb\nDescription-pt_BR: dois\n",
    }
    for name, text in lists.items():
        (tmp_path / f"x_bookworm_main_{name}").write_text(text)
    ((source, row),) = descriptions.read_pairs(tmp_path, "pt_BR")
    assert (source, row.query, row.positives) == ("libzip", "library for zip files", ("biblioteca zip",))


def test_phrases_of_ding_stand_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "de-en").write_text(
        "# Version\nAal {m} (Fisch) | Der Aal [zool.] lebt nachts; der Aal rutscht | Aale {pl} "
        ":: eel | The eel /E/ is smooth | eels\n"
        "Er geht jetzt nach Hause | mehr :: He is going home now\n"
    )
    ((word, row),) = ding.read_pairs(tmp_path / "de-en")
    assert (word, row.query, row.positives) == ("aal", "Der Aal lebt nachts", ("The eel is smooth",))


def test_examples_of_a_sense_become_pairs_and_its_neighbours_are_found() -> None:
    examples = ["a b c d", "short one", "e f g h", "i j k l", "m n o p"]
    first = (["bank", "bench"], "a long seat for several people", examples, "noun")
    rows = usage.make_pairs(first)
    assert [(row.query, *row.positives) for row in rows] == [("a b c d", "e f g h"), ("e f g h", "i j k l")]
    shares = (["Bank"], "land beside a river", [], "noun")
    near = (["seat"], "a long seat for several persons", [], "noun")
    apart = (["sky"], "what is above us all", [], "noun")
    assert usage.touching([apart, shares, near, first], [first]) == {1, 2, 3}
    rows = list(wordnet_all.make_rows((["sky"], "what is above us", ["blue sky here", "no"], "noun"), 60))
    assert [(row.query, *row.positives) for row in rows] == [
        ("sky", "what is above us"),
        ("blue sky here", "sky: what is above us"),
    ]


def test_near_any_finds_what_plain_loops_find() -> None:
    words = [f"w{n}" for n in range(30)]
    texts = ["", *(" ".join(words[: n + 6]) for n in range(20))]
    others = ["", " ".join(words[:9]), " ".join(words[3:22])]
    values = [clusters.features(text) for text in others]
    expected = {
        n
        for n, t in enumerate(texts)
        if any(clusters.overlap(v, clusters.features(t)) >= 0.8 for v in values)
    }
    assert len(expected) >= 4
    assert clusters.near_any(texts, others, 0.8) == expected


def test_built_sets_hold_out_documents_and_leave_shipped_test_texts_out(tmp_path: Path) -> None:
    held_out = read_rows(ROOT / "rows" / "debian" / "test.parquet")[0]
    rows = {f"page {n}": Row(f"query {n}", (f"about thing{n} and other{n} matter{n}",)) for n in range(600)}
    rows["leak"] = Row("leak", (held_out.positives[0] + " really",))
    rows["same"] = Row("Same text", ("same Text",))
    rows["page 8"] = Row("query 8", ("about thing8\x07 and other8 \x85 matter8",))
    rows["twin"] = Row("twin", ("about thing7 and other7 matter7 again",))
    args = fetch.read_arguments(["--out", str(tmp_path / "s")], "", "s", rows=10**6, test=100, words=60)
    card = Card(
        "data_recipes.x", "STS12 (all)", title="S", origins=[], licence="L", made="M", split="P", date="D"
    )
    built.write_built(args, rows.items(), card, "licence " * 20)
    train, test = (read_rows(tmp_path / "s" / f"{part}.parquet") for part in ("train", "test"))
    expected = {rows[name].query for name in rows if name.startswith("page") and built.is_held_out(name)}
    assert {row.query for row in test} == expected
    assert 3 <= len(expected) <= 25
    queries = {row.query for row in train}
    assert not queries & (expected | {"leak", "Same text"})
    assert [row.positives[0] for row in train if row.query == "query 8"] == [
        "about thing8 and other8 matter8"
    ]
    assert ("query 7" in queries) != ("twin" in queries)
    text = (tmp_path / "s" / "card.md").read_text()
    assert "## MTEB overlap\n\nSTS12 (all)\n" in text
    assert "left out before: 1; training rows that nearly equal (0.5)" in text
    assert re.search(r"held-out query: 1\.$", text, re.MULTILINE)


def test_every_recipe_writes_where_the_list_looks_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = {path.parent.name for path in (ROOT / "rows").glob("*/card.md")}
    for name, (recipe, main) in local_recipes().items():
        if name == "faq":
            continue
        folder = f"rows/{name}" if name in shipped else f"build/rows/{name}"
        assert default_out(main, recipe.arguments, capsys) == folder, name


def default_out(
    main: Callable[[Sequence[str]], None], arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> str:
    """The folder that a recipe writes without arguments of the user."""
    if "--out" in arguments:
        return arguments[arguments.index("--out") + 1]
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    found = re.search(r"folder to write\s+\(default:\s+(\S+)\)", capsys.readouterr().out)
    return found[1] if found else ""


def test_apt_gets_lists_of_its_own_in_several_languages(tmp_path: Path) -> None:
    options = fetch.apt_options(tmp_path / "a", ("en", "pt_BR"))
    assert [word for word in options if "Languages" in word] == [
        "Acquire::Languages=", "Acquire::Languages::=en", "Acquire::Languages::=pt_BR",
    ]  # fmt: skip
    assert f"Dir::State::lists={tmp_path}/a/lists" in options
    assert (tmp_path / "a/lists/partial").is_dir()


def test_english_articles_of_the_full_set_are_not_the_held_out_ones() -> None:
    titles = wikipedia_all.held_out_titles()
    assert len(titles) == len(read_rows(ROOT / "rows" / "wikipedia" / "test.parquet"))
