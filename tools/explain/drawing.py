"""Drawings as SVG text: shapes, arrows, words that are checked to fit, embedded pictures. Standard library only.

Lengths are in user units and y grows downwards. A shape's look is a class of the style sheet given to the drawing,
which may have a dark form (`prefers-color-scheme`); every drawing brings a background of its own, so that it is
legible on any page.
"""

import base64
from collections.abc import Sequence
from html import escape

Point = tuple[float, float]
FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
# Widths in em of DejaVu Sans, the widest of these fonts; what is not listed counts as the last.
WIDTHS = (
    (0.30, "'ijlIJ"),
    (0.36, " ,.·/:;\\|f-"),
    (0.42, "()[]t!²r"),
    (0.54, '"*_`–sz?cL'),
    (0.61, "FkvxyPTYao"),
    (0.65, "eESbdghnpquσ$0123456789{}"),
    (0.72, "K∑AVΔBRXZCU"),
    (0.80, "HNDG&OQ"),
    (0.86, "w#+<=>^~×→↓↑±≤M"),
    (1.00, "%m½W@"),
)
EM = {char: width for width, chars in WIDTHS for char in chars}
BOLD = 1.13  # a bold letter's width, of a plain one's


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Largest width that `text` has in any of the fonts, in user units."""
    return sum(EM.get(char, 1.0) for char in text) * size * (BOLD if bold else 1)


def number(value: float) -> str:
    """At most two decimals, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


class Drawing:
    """An SVG picture that grows by shapes; later ones lie on top.

    style: CSS rules; the classes `page` (background), `ink` and `line` are used by the methods here
    """

    def __init__(self, width: float, height: float, title: str, style: str) -> None:
        self.width, self.height, self.title, self.style = width, height, title, style
        self.parts: list[str] = []
        self.definitions: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, look: str, radius: float = 0) -> None:
        """A rectangle with its upper left corner at (x, y)."""
        place = " ".join(f'{n}="{number(v)}"' for n, v in zip(("x", "y", "width", "height"), (x, y, width, height)))
        rounded = f' rx="{number(radius)}"' if radius else ""
        self.parts.append(f'<rect class="{look}" {place}{rounded}/>')

    def circle(self, x: float, y: float, radius: float, look: str) -> None:
        self.parts.append(f'<circle class="{look}" cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"/>')

    def ellipse(self, x: float, y: float, across: float, down: float, look: str) -> None:
        place = f'cx="{number(x)}" cy="{number(y)}" rx="{number(across)}" ry="{number(down)}"'
        self.parts.append(f'<ellipse class="{look}" {place}/>')

    def path(self, commands: str, look: str) -> None:
        """Any path in SVG's own letters."""
        self.parts.append(f'<path class="{look}" d="{commands}"/>')

    def line(self, points: Sequence[Point], look: str = "line", arrow: bool = False) -> None:
        """Straight pieces through `points`, at the end an arrow's head if wanted."""
        head = ' marker-end="url(#head)"' if arrow else ""
        places = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        self.parts.append(f'<polyline class="{look}" points="{places}"{head}/>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        look: str = "ink",
        size: float = 14,
        anchor: str = "middle",
        bold: bool = False,
        room: float | None = None,
    ) -> None:
        """One line of text on the base line y; ValueError where it may be wider than `room`, or leave the drawing."""
        width = text_width(words, size, bold)
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        if room is not None and width > room:
            raise ValueError(f"{words!r} may be {width:.0f} wide, has room for {room:.0f}")
        if left < 0 or left + width > self.width:
            raise ValueError(f"{words!r} may reach from {left:.0f} to {left + width:.0f}, outside of the drawing")
        weight = ' font-weight="bold"' if bold else ""
        side = "" if anchor == "middle" else f' text-anchor="{anchor}"'
        place = f'x="{number(x)}" y="{number(y)}" font-size="{number(size)}"'
        self.parts.append(f'<text class="{look}" {place}{side}{weight}>{escape(words)}</text>')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        look: str,
        lines: Sequence[str],
        size: float = 14,
        radius: float = 6,
        bold: bool = False,
    ) -> None:
        """A rectangle around the centre (x, y) with lines of text in it, the first one bold if wanted."""
        self.rect(x - width / 2, y - height / 2, width, height, look, radius)
        step = size * 1.25
        if len(lines) * step > height:
            raise ValueError(f"{len(lines)} lines are {len(lines) * step:.0f} high, have room for {height:.0f}")
        for i, words in enumerate(lines):
            base = y + (i - (len(lines) - 1) / 2) * step + size * 0.35
            self.text(x, base, words, f"{look}-ink", size, bold=bold and i == 0, room=width - 8)

    def define_image(self, name: str, png: bytes, width: float, height: float, extra: str = "") -> None:
        """Embed a PNG once, to be shown by `use`."""
        data = base64.b64encode(png).decode("ascii")
        size = f'width="{number(width)}" height="{number(height)}"'
        self.definitions.append(f'<image id="{name}" {size} {extra} href="data:image/png;base64,{data}"/>')

    def use(self, name: str, x: float, y: float) -> None:
        self.parts.append(f'<use href="#{name}" x="{number(x)}" y="{number(y)}"/>')

    def svg(self) -> str:
        """The whole picture, with a line end."""
        size = f"{number(self.width)} {number(self.height)}"
        start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{number(self.width)}" role="img"'
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            'markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0,0 L8,4 L0,8 z"/></marker>'
        )
        lines = [
            f'{start} font-family="{FONT}" text-anchor="middle">',
            f"<title>{escape(self.title)}</title>",
            f"<style>{self.style}</style>",
            "<defs>" + "".join([head, *self.definitions]) + "</defs>",
            f'<rect class="page" width="{number(self.width)}" height="{number(self.height)}" rx="10"/>',
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"
