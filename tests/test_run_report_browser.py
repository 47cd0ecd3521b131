"""The page of a run in a browser: no error on the console, nothing wider than a telephone's screen."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from reported_runs import evaluated, reported_run, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SWITCHES = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=3000", "--enable-logging=stderr", "--dump-dom",
]  # fmt: skip
# parts that scroll by themselves may hold what is wider; whatever else reaches beyond the screen is told
MEASURE = """<script>
for (const details of document.querySelectorAll("details")) details.open = true;
const wide = [], root = document.documentElement;
for (const one of document.querySelectorAll("body *")) {
  const box = one.getBoundingClientRect();
  const inside = one.parentElement.closest(".scroll, pre, svg");
  if (box.right > root.clientWidth + 0.5 && !inside) wide.push(one.tagName);
}
const seen = {width: innerWidth, room: root.clientWidth, page: root.scrollWidth, wide: wide};
parent.document.getElementById("told").append(JSON.stringify(seen) + "\\n");
</script>"""
PLANTED = '<div style="width: 900px">as wide as no telephone is</div>'


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_the_page_fits_its_screen_and_says_nothing_on_the_console(tmp_path: Path) -> None:
    """One browser, three frames; the last is too wide and the page around them speaks: both are noticed."""
    run = reported_run(tmp_path)
    page = evaluated(run, write_run(run))
    script = html.escape(MEASURE)
    pages = [(390, page), (1280, page), (390, page.replace("</main>", f"{PLANTED}</main>"))]
    frames = [(width, html.escape(text)) for width, text in pages]
    shown = "".join(
        f'<iframe width="{width}" height="800" style="border: 0" srcdoc="{text}{script}"></iframe>'
        for width, text in frames
    )
    whole = tmp_path / "frames.html"
    whole.write_text(f'<pre id="told"></pre>{shown}<script>console.error("planted")</script>')
    assert CHROMIUM is not None
    line = [CHROMIUM, *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}", whole.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stderr
    seen = {}
    for text in html.unescape(told[1]).splitlines():
        frame = json.loads(text)
        seen[frame["width"], bool(frame["wide"])] = frame
    assert sorted(seen) == [(390, False), (390, True), (1280, False)]
    assert all(frame["page"] == frame["room"] for (_, wide), frame in seen.items() if not wide)
    assert seen[390, True]["page"] > 900
    assert seen[390, True]["wide"] == ["DIV"]
    assert len(re.findall("CONSOLE", done.stderr)) == 1, done.stderr
    assert "planted" in done.stderr
