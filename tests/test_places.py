"""What processes leave for each other: who is missing, who failed first, and that only that one tells."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from filelock import FileLock

from embedtrain.artifacts import write_atomic
from embedtrain.config.errors import UserError
from embedtrain.places import (
    ENDED,
    FOLDER,
    Patience,
    Places,
    Stalled,
    begin,
    describe_missing,
    end,
    fail,
    first_failure,
    has_told,
    here,
    is_lost,
    locked,
    read_places,
    wait_for,
)

TIMED_OUT = RuntimeError("[/third_party/gloo/tcp/buffer.cc:129] Timed out waiting 3000ms for send operation")


def test_who_is_missing_is_named_with_its_last_place(tmp_path: Path) -> None:
    zero, one, two = (Places(tmp_path, rank, 60) for rank in range(3))
    for places in (zero, one, two):
        places.at("feed", 11)
    one.at("encode")
    for places in (zero, two):
        places.at("feed", 12)
    with zero.meeting("gather"), two.meeting("gather"):
        assert describe_missing(tmp_path, 0, 60) == (
            "process 1 has not come to 'gather' of step 12 for 60 s; it was last at step 11 'encode'"
        )
        assert describe_missing(tmp_path, 2, None) == (
            "process 2 waits in 'gather' of step 12, and has lost process 1, which was last at step 11 "
            "'encode'"
        )
    assert read_places(tmp_path)[0].describe() == "step 12 'after gather'"
    assert read_places(tmp_path)[0].pid == os.getpid()


def test_one_that_stays_where_all_have_come_is_named(tmp_path: Path) -> None:
    zero, one = (Places(tmp_path, rank, 60) for rank in range(2))
    with zero.meeting("barrier"), one.meeting("barrier"):
        assert describe_missing(tmp_path, 0, 2.5) == (
            "process 1 has not come out of 'barrier' for 2.5 s; it was last at 'barrier'"
        )


def test_others_that_never_came_have_no_place(tmp_path: Path) -> None:
    assert describe_missing(tmp_path, 0, 600) == "process 0 waits in vain for the others to start"


def test_only_what_the_group_says_is_a_lost_process() -> None:
    assert is_lost(TIMED_OUT)
    assert is_lost(RuntimeError("[gloo/transport/tcp/pair.cc:535] Connection closed by peer [127.0.0.1]:5"))
    assert not is_lost(RuntimeError("the endpoint timed out"))
    assert not is_lost(UserError("gloo timed out"))


def test_the_first_to_fail_tells_and_the_others_are_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not has_told(tmp_path)
    told = []
    for rank, error in ((1, ValueError("boom")), (0, TIMED_OUT)):
        monkeypatch.setenv("RANK", str(rank))
        told.append(fail(tmp_path, "tune", error, 3))
    first, second = told
    log = tmp_path / FOLDER / "failure-1.log"
    text = f"stage 'tune' crashed in process 1 of 2: ValueError: boom; the traceback is in {log}"
    assert isinstance(first, UserError)
    assert str(first) == text
    assert isinstance(second, SystemExit)
    assert second.code == 2
    failure = first_failure(tmp_path)
    assert failure is not None
    assert (failure.rank, failure.message, failure.code) == (1, text, 2)
    assert log.read_text().endswith("ValueError: boom\n")
    assert has_told(tmp_path)


def test_one_process_alone_tells_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the same shell starts it again by hand."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for _ in range(2):
        error = fail(tmp_path, "tune", UserError("the rows are wrong"), 3)
        assert isinstance(error, UserError)
        assert str(error) == "the rows are wrong"


def test_a_full_disk_still_lets_it_tell(tmp_path: Path) -> None:
    error = fail(tmp_path / "absent", "tune", UserError("no space left"), 3)
    assert str(error) == "no space left"


# --- waiting for files --------------------------------------------------------------------------------------


def test_wait_for_files_of_another_process(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("b", "a")]
    late = threading.Timer(0.2, lambda: [write_atomic(path, "x") for path in reversed(paths)])
    late.start()
    seen: list[Path] = []
    wait_for(paths, arrived=seen.append, poll_seconds=0.01)
    assert seen == paths
    late.join()


def test_nobody_waits_once_the_launcher_is_dead(tmp_path: Path) -> None:
    waits = f"""
        from pathlib import Path
        from embedtrain.artifacts import write_atomic
        from embedtrain.places import wait_for
        write_atomic(Path({str(tmp_path / "pid")!r}), "waiting")
        try:
            wait_for([Path({str(tmp_path / "never")!r})])
        except RuntimeError as error:
            write_atomic(Path({str(tmp_path / "error")!r}), str(error))
    """
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {dedent(waits)!r}])"
    launcher = subprocess.Popen([sys.executable, "-c", starts])
    wait_for([tmp_path / "pid"])
    time.sleep(0.3)  # until it waits
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 30
    while not (tmp_path / "error").exists():
        assert time.monotonic() < deadline, "it still waits"
        time.sleep(0.05)
    assert "never" in (tmp_path / "error").read_text()


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """One more process of a stage that this one has begun, with a patience of half a second."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    begin(tmp_path, 0, 0.5)
    place = Places(tmp_path, 1, 0.5)
    yield place
    end()
    place.close()


def wait_in_vain(tmp_path: Path) -> str:
    """What is told of it."""
    with pytest.raises(Stalled) as error:
        wait_for([tmp_path / "never"], poll_seconds=0.01)
    return str(error.value)


def test_it_waits_as_long_as_the_other_lives(tmp_path: Path, other: Places) -> None:
    """Three times its patience, in which nothing else is heard of the other's work."""
    other.at("a long work")
    other.beat()
    thread = threading.Timer(1.5, lambda: write_atomic(tmp_path / "made", "x"))
    thread.start()
    wait_for([tmp_path / "made"], poll_seconds=0.01)
    thread.join()


def test_who_gives_no_sign_of_life_is_named(tmp_path: Path, other: Places) -> None:
    other.at("faq: unit 3")
    told = "process 1 gives no sign of life for 0.5 s; it was last at 'faq: unit 3'; process 0 waits for "
    assert wait_in_vain(tmp_path) == f"{told}{tmp_path / 'never'}"


def test_who_never_came_is_named(tmp_path: Path, other: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    other.beat()
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert wait_in_vain(tmp_path).startswith("process 2 has not come for 0.5 s; process 0 waits for ")


def check_for(patience: Patience, seconds: float) -> None:
    """Look again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        patience.check(Path("never"))
        time.sleep(0.01)


def test_one_that_has_ended_is_no_longer_waited_for(tmp_path: Path, other: Places) -> None:
    """Unless it is needed; what stood there before tells of an earlier start."""
    other.at(ENDED)
    own = here()
    assert own is not None
    anyway, needed = Patience(own, [1]), Patience(own, [1], needed=True)
    with pytest.raises(Stalled, match="process 1 gives no sign of life"):
        check_for(needed, seconds=30)
    check_for(anyway, seconds=1)
    needed = Patience(own, [1], needed=True)
    for what in ("start", ENDED):
        other.at(what)
        time.sleep(0.2)
        if what == "start":
            needed.check(tmp_path)
    with pytest.raises(Stalled, match="process 1 has ended"):
        needed.check(tmp_path)


def test_a_time_in_which_all_were_suspended_does_not_count(
    tmp_path: Path, other: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience.of_this()
    assert patience is not None
    clock = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: clock + 3600)
    patience.check(tmp_path)


def test_a_lock_that_is_never_let_go_is_told(tmp_path: Path, other: Places) -> None:
    other.at("tokenise")
    held = FileLock(tmp_path / "one.lock")
    with held, pytest.raises(Stalled, match=r"process 1 .* last at 'tokenise'"), locked(held.lock_file):
        pass


def test_long_places_fit_their_file(tmp_path: Path) -> None:
    """Each replaces the whole of the one before."""
    place = Places(tmp_path, 0, 60)
    place.at("учитель/" * 70)
    [found] = read_places(tmp_path)
    assert found.what
    assert ("учитель/" * 70).startswith(found.what)
    place.at("short")
    assert [one.what for one in read_places(tmp_path)] == ["short"]
    place.close()
