"""A page of headings, paragraphs, tables, pictures and videos, written as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2128;
  background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #d0d7de; padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { background: #f3f5f7; } tr.paper td, td.paper { color: #57606a; background: #faf6ec; }
img, video { max-width: 100%; height: auto; image-rendering: pixelated; } code { background: #f3f5f7; }
img.plot { image-rendering: auto; }
@media (prefers-color-scheme: dark) { body { background: #14171b; color: #dde3ea; }
  th, td { border-color: #3a424c; } th, code { background: #20262d; } img.plot { background: #fff; } }
""".strip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


@dataclass
class Document:
    """Blocks in order; each is kept in both forms as it is added."""

    title: str
    _markdown: list[str] = field(default_factory=list)
    _html: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """A section begins."""
        self._add(f"## {text}", f"<h2>{_inline(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph; `code` and **strong** are understood."""
        self._add(text, f"<p>{_inline(text)}</p>")

    def items(self, lines: Sequence[str]) -> None:
        """A list."""
        points = "".join(f"<li>{_inline(line)}</li>" for line in lines)
        self._add("\n".join(f"- {line}" for line in lines), f"<ul>{points}</ul>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column names its rows."""
        head = "".join(f"<th>{_inline(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._add("\n".join(table(header, rows)), f"<table><tr>{head}</tr>{body}</table>")

    def picture(self, path: str, text: str, plot: bool = False) -> None:
        """A picture beside the page; ``plot``: drawn with smooth edges."""
        kind = ' class="plot"' if plot else ""
        self._add(f"![{text}]({path})", f'<img{kind} src="{html.escape(path)}" alt="{html.escape(text)}">')

    def video(self, path: str, text: str) -> None:
        """A video beside the page, in Markdown a link to it."""
        source = f'<video src="{html.escape(path)}" controls loop muted playsinline></video>'
        self._add(f"[{text}]({path})", f"<figure>{source}<figcaption>{_inline(text)}</figcaption></figure>")

    def _add(self, markdown: str, page: str) -> None:
        self._markdown.append(markdown)
        self._html.append(page)

    def markdown(self) -> str:
        """The page as Markdown."""
        return "\n\n".join([f"# {self.title}", *self._markdown]) + "\n"

    def html(self) -> str:
        """The page as HTML with nothing outside but its pictures and videos."""
        title = html.escape(self.title)
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
        body = "\n".join([f"<h1>{title}</h1>", *self._html])
        head = f"<head>{head}<style>{STYLE}</style></head>"
        return f'<!doctype html>\n<html lang="en">{head}\n<body>\n{body}\n</body></html>\n'


def _inline(text: str) -> str:
    """Text with `code` and **strong** as HTML."""
    escaped = html.escape(text, quote=False)
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", coded)
