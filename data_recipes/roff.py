"""Plain text from manual pages written with the man macros."""

import re
from collections.abc import Iterator

ESCAPES = {r"\-": "-", r"\e": "\\", r"\&": "", r"\(aq": "'", r"\(dq": '"', r"\(co": "©", r"\(em": "—"}
ESCAPES |= {r"\(en": "–", r"\(bu": "•", r"\*(Aq": "'", r"\(lq": "“", r"\(rq": "”", r"\(ti": "~"}
ESCAPES |= {r"\(ha": "^", r"\(->": "→", r"\(mu": "×", r"\ ": " ", r"\~": " ", r"\|": "", r"\^": "", r"\/": ""}
FONT = re.compile(r"\\f(?:\(..|\[[^\]]*\]|.)|\\s[+-]?\d|\\%|\\[:,]")
ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|(\S+)')
FONTS, TIGHT = {"B", "I", "SM", "SB", "R"}, {"BR", "RB", "BI", "IB", "IR", "RI"}
BREAKS = {"PP", "P", "LP", "sp", "TP", "IP", "RS", "RE", "HP", "br", "SS", "TQ", "EX", "EE"}
HIDDEN = {"nf": "fi", "TS": "TE", "EX": "EE", "EQ": "EN", "ig": "."}


def plain_roff(text: str) -> str:
    """A line without escapes."""
    text = FONT.sub("", text)
    for escape, sign in ESCAPES.items():
        text = text.replace(escape, sign)
    return re.sub(r"\\\(..|\\\[[^\]]*\]|\\\*\(..", "", text)


def arguments_of(rest: str) -> list[str]:
    """Words after a macro; one in quotes counts as one."""
    return [quoted or bare for quoted, bare in ARGUMENT.findall(rest)]


def man_sections(source: str) -> dict[str, list[str]]:
    """Heading → its plain paragraphs; tables, code and comments are left out."""
    sections: dict[str, list[str]] = {"": [""]}
    paragraphs, until = sections[""], ""
    for line in source.splitlines():
        macro, _, rest = line[1:].strip().partition(" ") if line.startswith((".", "'")) else ("", "", line)
        if until:
            until = "" if macro == until else until
        elif macro in HIDDEN:
            until = HIDDEN[macro]
        elif macro == "SH":
            paragraphs = sections.setdefault(plain_roff(rest).strip('" '), [""])
        elif macro in BREAKS:
            paragraphs.append("")
        elif not macro or macro in FONTS | TIGHT:
            words = "" if macro in TIGHT else " "
            paragraphs[-1] += " " + plain_roff(words.join(arguments_of(rest)) if macro else rest)
    return {heading: [" ".join(t.split()) for t in texts if t.strip()] for heading, texts in sections.items()}


def man_summary(paragraphs: list[str]) -> Iterator[str]:
    """What a page's NAME section says after the dash."""
    for text in paragraphs[:1]:
        if " - " in text:
            yield text.partition(" - ")[2].strip()
