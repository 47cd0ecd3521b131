"""Plain text from Perl's pod and Python's reStructuredText."""

import re
from collections.abc import Iterator

POD_CODE = re.compile(r"[A-Z](?:<<+ (.*?) >>+|<([^<>]*)>)", re.DOTALL)
POD_LINK = re.compile(r"L<([^<>|]*)\|?([^<>]*)>")
POD_ESCAPES = {"E<gt>": ">", "E<lt>": "<", "E<sol>": "/", "E<verbar>": "|"}
ROLE = re.compile(r":(?:[a-z+-]+:)+`([^`]*)`", re.IGNORECASE)
LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")
MARKS = re.compile(r"``([^`]+)``|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|`([^`]+)`_{0,2}|\|([^|\s]+)\|")
UNDERLINE = re.compile(r"^([=\-~^\"'#*+.])\1{2,}$")


def plain_pod(text: str) -> str:
    """A paragraph of pod without its codes."""
    text = re.sub(r"X<[^<>]*>", "", text)
    for escape, sign in POD_ESCAPES.items():
        text = text.replace(escape, {"<": "\0", ">": "\1"}.get(sign, sign))
    text = POD_LINK.sub(lambda m: (m[1] or m[2]).strip('"').replace("/", " ").replace('"', ""), text)
    while (changed := POD_CODE.sub(lambda m: m[1] or m[2] or "", text)) != text:
        text = changed
    return " ".join(text.replace("\0", "<").replace("\1", ">").split())


def role_text(match: re.Match[str]) -> str:
    """What a reader sees of `:role:`content``."""
    content = match[1]
    if shown := re.fullmatch(r"(.*?)\s*<[^>]*>", content, re.DOTALL):
        return shown[1]
    return content.rpartition(".")[2] if content.startswith("~") else content.lstrip("!")


def plain_rst(text: str) -> str:
    """A paragraph of reStructuredText without its marks."""
    text = LINK.sub(r"\1", ROLE.sub(role_text, text))
    text = MARKS.sub(lambda m: next(group for group in m.groups() if group), text)
    text = re.sub(r"\\(.)", r"\1", text.replace("\\ ", ""))
    return " ".join(re.sub(r"::$", ":", text.strip()).split())


def rst_sections(source: str) -> Iterator[tuple[str, list[str]]]:
    """(heading, its own lines) for every section of a page."""
    lines = source.splitlines()
    heads = [
        n
        for n in range(1, len(lines))
        if UNDERLINE.match(lines[n]) and lines[n - 1].strip() and len(lines[n]) >= len(lines[n - 1].rstrip())
        and not UNDERLINE.match(lines[n - 1]) and not lines[n - 1].startswith((" ", "..", "|"))
    ]  # fmt: skip
    ends = [head - 1 for head in heads[1:]] + [len(lines)]
    for head, end in zip(heads, ends, strict=bool(heads)):
        yield plain_rst(lines[head - 1]), lines[head + 1 : end]


def rst_paragraphs(lines: list[str]) -> Iterator[str]:
    """Plain paragraphs at the left margin: no directives, code, tables, lists or comments."""
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        block = block.strip("\n")
        if block and not re.match(r"\s|\.\. |[-*+#|>] ?|\+-|=+ |:\w+:|\d+\. ", block) and not is_rule(block):
            yield plain_rst(block)


def is_rule(block: str) -> bool:
    """Whether a block is a line of marks and no text."""
    return not re.search(r"\w", block)
