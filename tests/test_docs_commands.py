"""Every command and snippet of README.md, docs/ and --help is executed, here or where a list says."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
from data_page import read_examples
from shown_commands import HELP, ROOT, Shown, pages, perform, shown_in_help, shown_on
from shown_place import copy_place, make_place
from shown_ways import (
    ELSEWHERE,
    PAGES_WITH_TESTS,
    SLOW,
    STAND_INS,
    WHOLE_PAGES,
    Elsewhere,
    StandIn,
    elsewhere,
    is_slow,
    stand_in,
)

from embedtrain.config.load import load_run

# mteb warns of keys that sentence-transformers has renamed, and of its own
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mteb", "ignore::FutureWarning")

SHOWN = {page.relative_to(ROOT).as_posix(): list(shown_on(page)) for page in pages()}
SHOWN[HELP] = list(shown_in_help())


def blocks_tested(page: str) -> set[str]:
    """The commands of a page that its own test executes."""
    module, _, _ = PAGES_WITH_TESTS[page].partition(".py")
    if page == "docs/data.md":
        return {example.command for example in read_examples()}
    commands = getattr(importlib.import_module(module), "COMMANDS", ())
    return {shlex.join(shlex.split(f"embedtrain {line}")) for line in commands if "configs/" not in line}


def here(page: str) -> list[Shown]:
    """What of a page is executed here: what no other test executes."""
    if page in WHOLE_PAGES:
        return []
    tested = blocks_tested(page) if page in PAGES_WITH_TESTS else set()
    return [one for one in SHOWN[page] if not (elsewhere(one.text) or one.text in tested)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("shown") / "place")


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own with all that pages name; it is the working directory."""
    copy = copy_place(template, tmp_path / "place")
    monkeypatch.chdir(copy)
    return copy


def execute(place: Path, shown: list[Shown], *, slow: bool) -> None:
    """Walk down a page; what is slow is passed over unless it is asked for."""
    scope: dict[str, object] = {"__name__": "shown"}
    for one in shown:
        if one.kind == "file":
            target = (place / one.title).resolve()
            assert target.is_relative_to(place.resolve()), f"{one.title} would be written into the repository"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # copies of a place share their files
            target.write_text(one.text, encoding="utf-8")
        elif one.kind == "python":
            exec(stand_in(one.text), scope)
        elif slow or not is_slow(one.text):
            if one.page == HELP:
                remove_output(place, one.text)
            perform(stand_in(one.text))


def remove_output(place: Path, line: str) -> None:
    """Each example of --help stands alone: none finds what another has written to the same place."""
    words = line.split()
    if "--out" in words:
        out = place / words[words.index("--out") + 1]
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)


@pytest.mark.parametrize("page", [page for page in SHOWN if here(page)])
def test_what_a_page_shows_works(page: str, place: Path) -> None:
    execute(place, here(page), slow=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page", [page for page in SHOWN if any(is_slow(one.text) for one in here(page) if one.kind == "command")]
)
def test_what_takes_longer_works_too(page: str, place: Path) -> None:
    execute(place, here(page), slow=True)


@pytest.mark.parametrize("tool", ["gpu_check", "compare_soups", "compare_negatives"])
def test_tools_that_take_longer_tell_their_options(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    perform(f"python {ROOT}/tools/{tool}.py --help")
    assert "--out" in capsys.readouterr().out


def test_commands_are_found() -> None:
    """The premise of it all: what pages show is seen in blocks, between words and in help."""
    lines = {one.text for shown in SHOWN.values() for one in shown}
    assert {"make quickstart", "make table", "embedtrain check my.yaml"} <= lines
    assert "embedtrain audit configs/quickstart.yaml --test-data rows/tests" in lines
    assert sum(len(shown) for shown in SHOWN.values()) > 150


def test_the_name_of_a_command_is_no_command(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("`embedtrain plan` `embedtrain plan a.yaml` `embedtrain evaluate --data` `pip:x==1`\n")
    assert [one.text for one in shown_on(page, tmp_path)] == ["embedtrain plan a.yaml"]


def test_a_new_command_that_does_not_work_is_found(place: Path) -> None:
    page = place / "new.md"
    for line, wrong in (
        ("embedtrain convert no_such.csv --out rows/new", "no_such.csv"),
        ("python no_such_tool.py", "no_such_tool.py"),
        ("make --dry-run no-such-target", "no-such-target"),
    ):
        page.write_text(f"```sh\n{line}\n```\n")
        with pytest.raises(Exception, match=wrong):
            execute(place, list(shown_on(page, place)), slow=False)


@pytest.mark.parametrize("one", ELSEWHERE, ids=lambda one: one.pattern)
def test_what_is_executed_elsewhere_is(one: Elsewhere) -> None:
    shown = [text for text in (s.text for page in SHOWN.values() for s in page) if elsewhere(text) == one]
    assert shown, "no page shows it any more"
    file, _, name = one.test.partition("::")
    if name:
        code = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", code, re.MULTILINE)
        named = [word for text in shown for word in re.findall(r"tools/[\w/]+", text)]
    else:
        code = (ROOT / file).read_text(encoding="utf-8")
        named = [text for text in shown if text != file]
        named = re.findall(r"make \w+|tools/\w+\.py", " ".join(named))
    assert all(Path(word).stem in code for word in named)


@pytest.mark.parametrize("test", [*PAGES_WITH_TESTS.values(), *WHOLE_PAGES.values()])
def test_pages_with_tests_of_their_own_have_them(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("one", STAND_INS, ids=lambda one: one.pattern)
def test_every_stand_in_stands_in_for_something(one: StandIn) -> None:
    texts = [shown.text for page in SHOWN for shown in here(page)]
    assert any(re.search(one.pattern, text) for text in texts), "no page shows it any more"
    assert one.why


@pytest.mark.parametrize("pattern", SLOW)
def test_every_slow_command_is_shown(pattern: str) -> None:
    assert any(re.fullmatch(pattern, shown.text) for page in SHOWN for shown in here(page))


def test_the_tiny_quickstart_has_the_stages_of_the_quickstart() -> None:
    """It stands in for `make quickstart`."""
    stages = [
        [(stage.name, stage.kind) for stage in load_run(ROOT / "configs" / f"{name}.yaml").stages]
        for name in ("quickstart", "tiny")
    ]
    assert stages[0] == stages[1]
