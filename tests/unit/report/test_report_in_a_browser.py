"""Pages as Chromium lays them out: at four widths, light and dark, by the boxes of their elements.

All pages are frames of one document, so that the browser starts once; what a script finds there is
the text that the browser prints.
"""

import html
import json
import shutil
import subprocess

import pytest
from PIL import Image
from reports import invent, page_of
from shard_sets import image
from test_report_pairs import clip, invent_pair, wav

from distgan.commands import report
from distgan.launchers.sweeps import comparison
from distgan.report.comparison import Compared
from distgan.runs.history import read_history

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), ""
)
WIDTHS = (360, 800, 1400, 2400)
DARK = "@media (prefers-color-scheme: dark)"
SCRIPT = """
const found = [];
function visible(node) { const box = node.getBoundingClientRect(); return box.width && box.height; }
function shown(node) {
  const text = node.textContent.trim().slice(0, 40);
  return `${node.tagName.toLowerCase()} ${node.getAttribute("class") || ""} "${text}"`;
}
function scrolls(node) {
  for (; node; node = node.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(node).overflowX)) return true;
  return false;
}
function light(colour) {
  const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(node) {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/rgba\\(.*, 0\\)/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
}
function words(text) {
  const all = [];
  for (const match of text.data.matchAll(/[^\\s\\-\\/\\u2013\\u2014{}"=:,]+/g)) {
    const range = text.ownerDocument.createRange();
    range.setStart(text, match.index);
    range.setEnd(text, match.index + match[0].length);
    all.push([match[0], new Set([...range.getClientRects()].map(box => Math.round(box.top))).size,
      range.getBoundingClientRect()]);
  }
  return all;
}
function lookAt(name, width, doc) {
  const say = (what, node) => found.push(`${name} at ${width}: ${what}: ${shown(node)}`);
  doc.querySelectorAll("details").forEach(one => one.open = true);
  if (doc.documentElement.scrollWidth > width) say("the page scrolls sideways", doc.body);
  for (const node of doc.body.querySelectorAll("*")) {
    if (!visible(node) || node.closest("svg") && node.tagName != "svg") continue;
    const box = node.getBoundingClientRect();
    if (box.right > width + 1 && !scrolls(node)) say("beyond the right edge", node);
    if (["TD", "TH", "DD"].includes(node.tagName) && node.scrollWidth > node.clientWidth + 1)
      say("narrower than what is in it", node);
    if (node.tagName == "IMG" && !node.naturalWidth) say("no picture", node);
    if (node.tagName == "TD") {
      const range = doc.createRange();
      range.selectNodeContents(node);
      const lines = new Set([...range.getClientRects()].map(b => Math.round(b.top))).size;
      if (lines > 4 && node.textContent.length / lines < 10) say("a column of crumbs", node);
    }
  }
  const walk = doc.createTreeWalker(doc.body, NodeFilter.SHOW_TEXT);
  for (let text; text = walk.nextNode();) {
    const parent = text.parentElement;
    if (!text.data.trim() || parent.closest("svg") || !visible(parent)) continue;
    const [a, b] = [light(getComputedStyle(parent).color), light(ground(parent))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) say(`contrast ${contrast.toFixed(1)}`, parent);
    for (const [word, lines, box] of words(text))
      if (lines > 1 && word.length <= MOST_LETTERS) say(`broken word ${word}`, parent);
      else if (box.right > width + 1 && !scrolls(parent)) say(`cut word ${word}`, parent);
  }
}
onload = () => {
  for (const frame of document.querySelectorAll("iframe"))
    lookAt(frame.name, Number(frame.width), frame.contentDocument);
  document.body.textContent = JSON.stringify({found, frames: FRAMES});
};
"""
MOST_LETTERS = 32  # of a word that must be whole; longer ones are digests and paths


def laid_out(pages, folder):
    """Return what is wrong with {name: page}, a line each."""
    frames = []
    for name, page in pages.items():
        assert DARK in page
        for scheme, style in (("light", "@media not all"), ("dark", "@media all")):
            text = html.escape(page.replace(DARK, style), quote=True)
            for width in WIDTHS:
                frames.append(
                    f'<iframe name="{name}, {scheme}" width="{width}" height="900" frameborder="0"'
                    f' srcdoc="{text}"></iframe>'
                )
    script = SCRIPT.replace("MOST_LETTERS", str(MOST_LETTERS)).replace("FRAMES", str(len(frames)))
    (folder / "all.html").write_text(
        f"<!DOCTYPE html><meta charset=utf-8><script>{script}</script><body>{''.join(frames)}"
    )
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    line += [f"--user-data-dir={folder / 'profile'}", "--window-size=2600,1200"]
    done = subprocess.run(
        [*line, (folder / "all.html").as_uri()], capture_output=True, text=True, timeout=300
    )
    said = html.unescape(done.stdout.partition("<body>")[2].partition("</body>")[0])
    assert said.startswith("{"), done.stdout[:500] + done.stderr[-2000:]
    result = json.loads(said)
    assert result["frames"] == len(frames)
    return sorted(set(result["found"]))


pytestmark = [
    pytest.mark.gate,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium"),
]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<p>good</p>", ""),
        ("<p style='width: 900px'>wide</p>", "beyond the right edge"),
        ("<table style='width:40px; overflow-wrap: anywhere'><td>frechet_standin", "broken word"),
        ("<p style='color: #999'>faint", "contrast"),
        ("<img src='data:image/png;base64,AA'alt=x style='width:9px;height:9px'>", "no picture"),
    ],
)
def test_a_fault_of_a_page_is_found(body, said, tmp_path):
    page = f"<!DOCTYPE html><style>{DARK} {{ }} body {{ margin: 0 }}</style><body>{body}"
    found = "\n".join(laid_out({"page": page}, tmp_path))
    assert said in found if said else not found


def test_pages_are_readable_at_every_width(tmp_path):
    home = tmp_path / "runs"
    folder = invent(home / "sagan/ngf96-1a2b3c4d", grids=3, side=16)
    Image.fromarray(image(7, 96)).save(folder / "real.png")
    (folder / "results").mkdir()
    (folder / "results/result.csv").write_text("id,file_name,critic_score,sha256\n" + ROW * 3)
    other = invent(home / "sagan/ngf64-5e6f7a8b", grids=3, side=16, overrides={"ngf": 64})
    pair = invent_pair(
        home / "timbre/b-00000000", "timbre", start=5, sound=True, results=True, pictures=2
    )
    for version in ("before", "after", "clean"):
        wav(pair / f"results/speaker1.{version}.wav", clip(0))
    sweep = home / "_sweeps/widths"
    comparison.write(sweep, [str(folder), str(other)], [{"ngf": 96}, {"ngf": 64}])
    two = report.write_comparison(
        [Compared.of(read_history(one), "") for one in (folder, other)], None
    )
    assert two == home / "sagan/comparison.html"
    pages = {
        "images": (folder / "report.html").read_text(),
        "pairs": page_of(pair),
        "two runs": two.read_text(),
        "sweep": (sweep / "report.html").read_text(),
    }
    found = laid_out(pages, tmp_path)
    assert not found, "\n".join(found)


ROW = f"0,images/00000.png,0.25,{'0123456789abcdef' * 4}\n"
