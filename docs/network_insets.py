"""The insides of the network's three building blocks, as panels of docs/network.svg.

Each function draws one panel whose upper left corner is (left, top); data flow downwards.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tools.explain.drawing import Drawing

ROW = 37  # from one step of a chain to the next
SMALL = 13.5


def draw_vssd(picture: Drawing, net: dict[str, Any], left: float, top: float, width: float) -> None:
    """Block on the left, mixer on the right, and what a token sees in the three forms below."""
    heading(picture, left, top, "VSSD block", "of the encoder, C channels")
    steps = ("DWConv 3×3", "+", "LayerNorm", "mixer", "+", "DWConv 3×3", "+", "LayerNorm", "MLP, 3 C hidden", "+")
    chain(picture, left + 106, top + 70, 128, steps, {"mixer": "vssd"})

    x, y = left + 282, top + 84
    picture.text(x, y - 7, "mixer, a 2-D Mamba-2", "muted", SMALL, room=180)
    picture.box(x, y + 20, 172, 28, "vssd", ["Linear"], SMALL)
    for lane, name in ((x - 60, "z"), (x, "x, B, C"), (x + 66, "Δ")):
        picture.line([(lane, y + 34), (lane, y + 58)], arrow=lane >= x)
        picture.text(lane + 6, y + 50, name, "ink", SMALL, "start", bold=True)
    picture.box(x, y + 79, 80, 42, "vssd", ["DWConv", "SiLU"], SMALL)
    picture.box(x + 66, y + 79, 44, 42, "vssd", ["soft-", "plus"], 12)
    picture.line([(x, y + 100), (x, y + 114)], arrow=True)
    picture.line([(x + 66, y + 100), (x + 66, y + 114)], arrow=True)
    picture.box(x + 24, y + 135, 128, 42, "vssd", ["SSD + D x", f"state {net['STATE_SIZE']}"], SMALL, bold=True)
    picture.line([(x, y + 156), (x, y + 170)], arrow=True)
    picture.box(x, y + 184, 88, 28, "vssd", ["LayerNorm"], SMALL)
    picture.line([(x, y + 198), (x, y + 210)], arrow=True)
    picture.line([(x - 60, y + 58), (x - 60, y + 220), (x - 11, y + 220)], arrow=True)
    joint(picture, x, y + 220, "×")
    picture.line([(x, y + 230), (x, y + 242)], arrow=True)
    picture.box(x, y + 256, 172, 28, "vssd", ["Linear"], SMALL)
    for i, (name, look) in enumerate((("causal", before), ("noncausal", whole), ("bidirectional", both))):
        base = top + 366 + 35 * i
        grid(picture, x - 86, base, 5, 6, look)
        picture.text(x - 46, base + 20, name, "ink", SMALL, "start")


def before(token: int) -> str:
    """What the middle token of 5 x 5 sees in the causal form: itself and those before it, less the further away."""
    if token >= 12:
        return "here" if token == 12 else "cell"
    return "near" if token > 9 else "mid" if token > 5 else "far"


def both(token: int) -> str:
    """The same in the bidirectional form."""
    return before(min(token, 24 - token))


def whole(token: int) -> str:
    """The same in the noncausal form: all tokens, wherever they are."""
    return "here" if token == 12 else "mid"


def draw_bra(picture: Drawing, net: dict[str, Any], left: float, top: float, width: float) -> None:
    """Block on the left; on the right how one region chooses its routes."""
    heading(picture, left, top, "BRA block", "of the decoder, C channels")
    steps = ("LayerNorm a", "DWConv 3×3", "+", "LayerNorm a", "BRA", "+", "LayerNorm b", "MLP, 3 C hidden", "+")
    chain(picture, left + 106, top + 70, 128, steps, {"BRA": "bra"}, first=1)

    picture.text(
        left + 16, top + 428, "LayerNorm a: one set of weights, used twice;", "muted", SMALL, "start", room=344
    )
    picture.text(left + 16, top + 448, "no residual around the block", "muted", SMALL, "start", room=344)

    x, y, cell = left + 282, top + 84, 15
    picture.text(x, y - 7, "routing attention", "muted", SMALL, room=180)
    routes = {9: "route", 10: "route", 16: "route", 17: "route", 24: "query"}
    grid(picture, x - 3.5 * cell, y + 6, 7, cell, lambda region: routes.get(region, "cell"))
    side = net["REGION"]
    boxes = (
        ("plain", 42, [f"regions of {side} × {side}", "input pixels: mean q, k"]),
        ("bra", 28, ["q · k: top-k regions"]),
        ("bra", 42, ["pixels attend to all", "pixels of those"]),
        ("plain", 42, ["+ DWConv 5×5 of v", "Linear"]),
    )
    column(picture, x, y + 116, 172, boxes)


def draw_scsa(picture: Drawing, net: dict[str, Any], left: float, top: float, width: float) -> None:
    """Gates of rows and columns, then of channels: the trunk on the left, what makes the gates on the right."""
    heading(picture, left, top, "SCSA", "where the skips join, 2 C channels")
    trunk, a, b = left + 40, left + 142, left + 282
    centre, y = (a + b) / 2, top + 70
    end = top + 462
    picture.line([(trunk, y - 2), (trunk, end)], arrow=True)
    picture.line([(trunk, y + 8), (b, y + 8), (b, y + 20)], arrow=True)
    picture.line([(a, y + 8), (a, y + 20)], arrow=True)
    for x, axis in ((a, "row"), (b, "column")):
        picture.box(x, y + 34, 130, 28, "plain", [f"{axis} means"], SMALL)
        picture.line([(x, y + 48), (x, y + 62)], arrow=True)
        picture.line([(x, y + 104), (x, y + 118)], arrow=True)
        picture.box(x, y + 132, 130, 28, "plain", ["GroupNorm, σ"], SMALL)
    lines = ["DWConv1d 3, 5, 7, 9 on a quarter", "of the channels each; shared"]
    picture.box(centre, y + 83, 270, 42, "scsa", lines, SMALL)
    picture.line([(b, y + 146), (b, y + 168), (trunk + 12, y + 168)], arrow=True)
    picture.line([(a, y + 146), (a, y + 168)])
    joint(picture, trunk, y + 168, "×")
    picture.line([(trunk, y + 188), (centre, y + 188), (centre, y + 201)], arrow=True)
    pool = net["POOL"]
    heads = ", ".join(map(str, net["SKIP_HEADS"]))
    boxes = (
        ("plain", 27, [f"AvgPool {pool}×{pool}, GroupNorm"]),
        ("plain", 27, ["q, k, v: a factor a channel"]),
        ("scsa", 42, ["attention between channels", f"{heads} heads, coarse to fine"]),
        ("plain", 27, ["mean over pixels, σ"]),
    )
    base = column(picture, centre, y + 201, 270, boxes)
    picture.line([(centre, base), (centre, base + 12), (trunk + 12, base + 12)], arrow=True)
    joint(picture, trunk, base + 12, "×")


def heading(picture: Drawing, left: float, top: float, name: str, where: str) -> None:
    picture.text(left + 16, top + 30, name, "ink", 18, "start", bold=True)
    picture.text(left + 16, top + 50, where, "muted", 14, "start")


def chain(
    picture: Drawing,
    x: float,
    top: float,
    width: float,
    steps: Sequence[str],
    looks: dict[str, str],
    first: int = 0,
) -> None:
    """Steps below one another; a "+" adds what went into the chain after the last "+" (or into step `first`)."""
    picture.line([(x, top - 10), (x, top + (len(steps) - 0.5) * ROW + 25)], arrow=True)
    branch = top - 2 + first * ROW
    for i, step in enumerate(steps):
        y = top + (i + 0.5) * ROW
        if step == "+":
            side = x - width / 2 - 14
            picture.line([(x, branch), (side, branch), (side, y), (x - 12, y)], arrow=True)
            joint(picture, x, y, "+")
            branch = y + 14
        else:
            picture.box(x, y, width, 27, looks.get(step, "plain"), [step], SMALL)


def column(
    picture: Drawing, x: float, top: float, width: float, boxes: Sequence[tuple[str, float, list[str]]]
) -> float:
    """Boxes (look, height, lines) below one another, an arrow between each two; returns where the last one ends."""
    for i, (look, height, lines) in enumerate(boxes):
        if i:
            picture.line([(x, top - 12), (x, top)], arrow=True)
        picture.box(x, top + height / 2, width, height, look, lines, SMALL)
        top += height + 12
    return top - 12


def joint(picture: Drawing, x: float, y: float, sign: str) -> None:
    picture.circle(x, y, 10, "plain")
    picture.text(x, y + 5, sign, "plain-ink", 16, bold=True)


def grid(picture: Drawing, x: float, y: float, side: int, cell: float, look: Callable[[int], str]) -> None:
    """side x side cells, numbered row by row, each with the look of its number."""
    for i in range(side * side):
        row, column = divmod(i, side)
        picture.rect(x + column * cell, y + row * cell, cell, cell, look(i), 2)
