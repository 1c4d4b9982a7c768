"""Parts of pages as pictures, for the gallery: what an id or a CSS selector names, as Chromium draws it.

python docs/tools/picture.py report.html '#s-equity' docs/images/gallery-equity.png [PAGE SELECTOR OUT ...]

Needs playwright (`pip install -c constraints.txt -e '.[dev]'`) and Chromium, the system's or what CHROMIUM names.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1000, 1200
"""Of the window, pixels; what is taller is cut there."""
COLOURS = 256
MOST = 150_000
"""Bytes of a picture: more belongs into no repository."""
PATIENCE = 300_000  # milliseconds


def pictures(wanted: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """PNG of the first element that each (page, selector) names, folded parts unfolded, in few colours."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.set_default_timeout(PATIENCE)
        opened = ""
        for page, selector in wanted:
            if page != opened:
                tab.goto(Path(page).resolve().as_uri(), wait_until="commit")
                tab.wait_for_function("document.readyState === 'complete'")
                tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
                tab.add_style_tag(content="nav { position: static !important; }")  # else it lies over what is taken
                opened = page
            tab.wait_for_function(
                "named => [...document.querySelectorAll(named + ' .plot')].every(plot => plot.querySelector('svg'))",
                arg=selector,
            )
            taken = Image.open(BytesIO(tab.locator(selector).first.screenshot(timeout=PATIENCE))).convert("RGB")
            small = BytesIO()
            taken.crop((0, 0, taken.width, min(taken.height, HEIGHT))).quantize(COLOURS).save(
                small, "PNG", optimize=True
            )
            yield small.getvalue()
        browser.close()


def main(words: Sequence[str]) -> None:
    """Write the pictures."""
    if not words or len(words) % 3:
        raise SystemExit("picture.py PAGE SELECTOR OUT.png [PAGE SELECTOR OUT.png ...]")
    pages, selectors, outs = words[::3], words[1::3], words[2::3]
    for out, taken in zip(outs, pictures(list(zip(pages, selectors, strict=True))), strict=True):
        if len(taken) > MOST:
            raise SystemExit(f"{out}: {len(taken)} bytes, more than {MOST}; name a smaller part")
        Path(out).write_bytes(taken)
        sys.stdout.write(f"Written: {out}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
