"""Files of the page: what a request's path means, and what belongs into the answer's head."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

# Without these two a page has no shared memory, and its runtime one thread; nothing of another
# origin gets into a page with them.
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".wasm": "application/wasm",
}

# What is shown where the page was not made.
PLAIN = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>fast-style</title>
<h1>fast-style</h1>
<p>This server stylizes photos: <code>POST /stylize?style=wave</code> with a photo as the body.
<a href="/styles">Its styles</a>. The page that does so in the browser is made by
<code>make web</code>, and shown with <code>--web build/web</code>.</p>
</html>
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFile:
    """A file of the page, its media type, and whether its bytes are compressed."""

    path: Path
    media_type: str
    compressed: bool


def find_file(folder: Path, url_path: str, *, accepts_gzip: bool) -> PageFile | None:
    """Return the file that a path names, None for one that is not in the folder."""
    parts = unquote(url_path).strip("/") or "index.html"
    if "\0" in parts:
        return None
    root = folder.resolve()
    path = (root / parts).resolve()
    media_type = _TYPES.get(path.suffix)
    if media_type is None or not path.is_relative_to(root) or not _is_file(path):
        return None
    packed = path.with_name(path.name + ".gz")
    if accepts_gzip and packed.is_file():
        return PageFile(path=packed, media_type=media_type, compressed=True)
    return PageFile(path=path, media_type=media_type, compressed=False)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # as of a name that is too long for a file
        return False
