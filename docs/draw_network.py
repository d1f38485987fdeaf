"""Draw the network: `python -m docs.draw_network` writes docs/network.svg. Standard library only.

Channels, heads, depths, routes and strides are read from the constants in models/, so that the
drawing says what the code builds.
"""

import ast
from pathlib import Path
from typing import Any

from docs.network_insets import draw_bra, draw_scsa, draw_vssd
from tools.explain.drawing import Drawing

ROOT = Path(__file__).resolve().parents[1]
SIDE = 224  # of the input for which sizes are given
WIDTH, HEIGHT = 1200, 1148
LEFT, RIGHT = 20, 1180
BANDS = ((20, 84), (148, 92), (284, 92), (420, 92), (556, 74))  # y and height of each resolution, fine to coarse
INDENT = 42  # by which each coarser stage is nearer to the middle
STYLE = """
.page{fill:#fff;stroke:#d5dae1}.band{fill:#f4f6f9}.panel{fill:#fafbfc;stroke:#d5dae1}
.ink{fill:#17202c}.muted{fill:#566171}.head{fill:#566171}.line{fill:none;stroke:#566171;stroke-width:1.6}
.skip{fill:none;stroke:#b46a00;stroke-width:2;stroke-dasharray:7 5}.thin{fill:none;stroke:#8a95a5;stroke-width:1.2}
.vssd{fill:#dce8fc;stroke:#2f63b5;stroke-width:1.5}.vssd-ink{fill:#133a78}
.bra{fill:#d5f0e3;stroke:#1b8259;stroke-width:1.5}.bra-ink{fill:#0c4a31}
.scsa{fill:#fdebcf;stroke:#b46a00;stroke-width:1.5}.scsa-ink{fill:#6e4000}
.move{fill:#ece4fa;stroke:#7850ba;stroke-width:1.5}.move-ink{fill:#44257d}
.plain{fill:#fff;stroke:#6a7685;stroke-width:1.5}.plain-ink{fill:#17202c}
.body{fill:#c9d0d9}.organ-a{fill:#2f63b5}.organ-b{fill:#e0902a}.organ-c{fill:#1b8259}.tissue{fill:#97a1ae}
.cell,.near,.mid,.far,.here,.route,.query{stroke:#fafbfc;stroke-width:1.2}
.cell{fill:#e3e7ed}.near{fill:#5f92e4}.mid{fill:#94b8f0}.far{fill:#c4d8f8}.here{fill:#133a78}
.route{fill:#6cc79e}.query{fill:#0c4a31}
@media (prefers-color-scheme:dark){
.page{fill:#12161d;stroke:#39424f}.band{fill:#1a2029}.panel{fill:#171c24;stroke:#39424f}
.ink{fill:#edf1f6}.muted{fill:#a9b4c2}.head{fill:#a9b4c2}.line{stroke:#a9b4c2}.thin{stroke:#76818f}
.skip{stroke:#f0a840}
.vssd{fill:#1d3158;stroke:#7fa9f3}.vssd-ink{fill:#dbe8ff}.bra{fill:#143d2d;stroke:#5ccb9c}.bra-ink{fill:#d3f7e7}
.scsa{fill:#4a3410;stroke:#f0a840}.scsa-ink{fill:#ffe9c8}.move{fill:#34254f;stroke:#b394ec}.move-ink{fill:#eee4ff}
.plain{fill:#222933;stroke:#8e99a8}.plain-ink{fill:#edf1f6}.body{fill:#465160}.tissue{fill:#6f7b8a}
.cell,.near,.mid,.far,.here,.route,.query{stroke:#171c24}
.cell{fill:#2b333f}.near{fill:#6d9cf0}.mid{fill:#4470b8}.far{fill:#2b4676}.here{fill:#e3edff}
.route{fill:#2d8a62}.query{fill:#d3f7e7}}
"""


def main() -> None:
    path = ROOT / "docs/network.svg"
    path.write_text(draw(read_constants()), encoding="utf-8")
    print(f"written: {path}")


def read_constants() -> dict[str, Any]:
    """The constants of the network's modules by name, read without running them."""
    found = {}
    for name in ("hetero_medseg", "bra", "scsa", "vssd"):
        for node in ast.parse((ROOT / f"models/{name}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                try:
                    found[node.targets[0].id] = ast.literal_eval(node.value)
                except ValueError:  # made of other names, not a plain value
                    continue
    return found


def draw(net: dict[str, Any]) -> str:
    """The SVG of the whole figure."""
    picture = Drawing(WIDTH, HEIGHT, "HeteroMedSeg: VSSD encoder, SCSA on the skips, BRA decoder", STYLE)
    draw_bands(picture, net)
    for level in range(3):
        draw_encoder_stage(picture, net, level)
        draw_decoder_stage(picture, net, level)
    draw_ends(picture, net)
    top, height, width = 650, HEIGHT - 650 - 20, (RIGHT - LEFT - 32) / 3
    for column, inset in enumerate((draw_vssd, draw_bra, draw_scsa)):
        left = LEFT + column * (width + 16)
        picture.rect(left, top, width, height, "panel", 8)
        inset(picture, net, left, top, width)
    return picture.svg()


def middle(band: int) -> float:
    return BANDS[band][0] + BANDS[band][1] / 2


def gap(band: int) -> float:
    """y between `band` and the next coarser one."""
    return (BANDS[band][0] + BANDS[band][1] + BANDS[band + 1][0]) / 2


def encoder_x(level: int) -> float:
    """Centre of an encoder stage, fine to coarse; 3 is the map below them."""
    return 270 + INDENT * level


def decoder_x(level: int) -> tuple[float, float, float, float]:
    """Centres of concatenation, SCSA, linear layer and BRA blocks of a decoder stage, fine to coarse."""
    right = 1166 - INDENT * level
    return right - 498, right - 403, right - 277, right - 104


def stride_of(net: dict[str, Any], level: int) -> int:
    return net["REGION"] * net["DIMS"][level] // net["DIMS"][-1]


def draw_bands(picture: Drawing, net: dict[str, Any]) -> None:
    """A band for each resolution with its stride, size and channels."""
    rows = [("stride 1", f"{SIDE} × {SIDE}", "")]
    for level, dim in enumerate(net["DIMS"]):
        stride = stride_of(net, level)
        rows.append((f"stride {stride}", f"{SIDE // stride} × {SIDE // stride}", f"{dim} channels"))
    for (y, height), (stride, size, channels) in zip(BANDS, rows):
        picture.rect(LEFT, y, RIGHT - LEFT, height, "band", 8)
        base = y + height / 2 - (13 if channels else 3)
        picture.text(36, base, size, "ink", 17, "start", bold=True)
        picture.text(36, base + 19, stride, "muted", 14, "start")
        if channels:
            picture.text(36, base + 37, channels, "muted", 14, "start")


def draw_encoder_stage(picture: Drawing, net: dict[str, Any], level: int) -> None:
    """Blocks, the skip to the right, the strided convolution to the next resolution."""
    x, y = encoder_x(level), middle(level + 1)
    depth, heads = net["ENCODER_DEPTHS"][level], net["HEADS"][level]
    below = encoder_x(level + 1)
    end = BANDS[level + 2][0] + (BANDS[level + 2][1] - (60 if level < 2 else 42)) / 2
    picture.line([(below, y + 30), (below, end)], arrow=True)
    picture.box(below, gap(level + 1), 132, 28, "plain", ["Conv 3×3 ↓ 2"], radius=14)
    picture.rect(x - 94, y - 36, 200, 60, "vssd", 6)  # a second sheet behind: the stage has several blocks
    picture.box(x, y, 200, 60, "vssd", [f"VSSD block × {depth}", f"{heads} heads"], 15, bold=True)
    join = decoder_x(level)[0]
    picture.line([(x + 106, y), (join - 17, y)], "skip", arrow=True)
    picture.text((x + 106 + join - 17) / 2, y - 9, "skip", "muted", 14)


def draw_decoder_stage(picture: Drawing, net: dict[str, Any], level: int) -> None:
    """Concatenation, SCSA, linear layer and blocks in a row; the expansion comes from the row below."""
    join, gates, reduce, blocks = decoder_x(level)
    y, dim, stage = middle(level + 1), net["DIMS"][level], 2 - level
    depth, topk, skip_heads = net["DECODER_DEPTHS"][stage], net["TOPK"][stage], net["SKIP_HEADS"][stage]
    turn = gap(level + 1)
    if level == 2:
        start = [(encoder_x(3) + 100, middle(4)), (join, middle(4))]
    else:
        above = decoder_x(level + 1)[3]
        start = [(above, middle(level + 2) - 36), (above, turn), (join, turn)]
    picture.line([*start, (join, y + 17)], arrow=True)
    along = join if level == 2 else (start[0][0] + join) / 2
    picture.box(along, turn, 152, 28, "move", ["PatchExpand ↑ 2"], radius=14)
    for left, right in ((join + 15, gates - 58), (gates + 58, reduce - 46), (reduce + 46, blocks - 100)):
        picture.line([(left, y), (right, y)], arrow=True)
    picture.circle(join, y, 16, "plain")
    picture.text(join, y + 5, "C", "plain-ink", 15, bold=True)
    picture.box(gates, y, 116, 60, "scsa", ["SCSA", f"{skip_heads} heads"], 15, bold=True)
    picture.box(reduce, y, 92, 60, "plain", ["Linear", f"{2 * dim} → {dim}"])
    picture.rect(blocks - 94, y - 36, 200, 60, "bra", 6)
    lines = [f"BRA block × {depth}", f"top-{topk} regions, {dim // net['HEAD_DIM']} heads"]
    picture.box(blocks, y, 200, 60, "bra", lines, 15, bold=True)


def draw_ends(picture: Drawing, net: dict[str, Any]) -> None:
    """Image and stem, the lowest map, and the head with the logits."""
    x, y = encoder_x(0), middle(0)
    half = net["DIMS"][0] // 2
    draw_section(picture, x - 56, y, labelled=False)
    picture.text(x + 2, y - 3, "image", "ink", 15, "start", bold=True)
    picture.text(x + 2, y + 16, "1 or 3 channels", "muted", 14, "start")
    picture.line([(x - 56, y + 33), (x - 56, middle(1) - 36)], arrow=True)
    words = f"stem: Conv 3×3 ↓ 2, {half} channels; GELU; Conv 3×3 ↓ 2"
    picture.box(x + 112, gap(0), 430, 28, "plain", [words], radius=14)
    picture.box(encoder_x(3), middle(4), 200, 42, "plain", ["lowest map, no blocks"])
    notes = (
        ("C", "concatenation of channels"),
        ("↓ 2", "stride 2, followed by BatchNorm"),
        ("↑ 2", "twice the size, by pixel shuffle"),
    )
    for i, (sign, meaning) in enumerate(notes):
        base = middle(4) - 14 + 22 * i
        picture.text(decoder_x(2)[0] + 92, base, sign, "ink", 14, "end", bold=True)
        picture.text(decoder_x(2)[0] + 104, base, meaning, "muted", 14, "start")
    x = decoder_x(0)[3]
    picture.line([(x, middle(1) - 36), (x, y + 22)], arrow=True)
    picture.box(x, gap(0), 226, 28, "move", ["LayerNorm, PatchExpand ↑ 4"], radius=14)
    picture.box(x, y, 176, 44, "plain", ["Conv 1×1", f"{net['DIMS'][0]} → K classes"])
    picture.line([(x - 88, y), (x - 206, y)], arrow=True)
    draw_section(picture, x - 248, y, labelled=True)
    picture.text(x - 300, y - 3, "logits", "ink", 15, "end", bold=True)
    picture.text(x - 300, y + 16, "K channels", "muted", 14, "end")


def draw_section(picture: Drawing, x: float, y: float, labelled: bool) -> None:
    """A small cross-section of a body: the image, or its labelled organs."""
    looks = ("organ-a", "organ-b", "organ-c") if labelled else ("tissue",) * 3
    picture.ellipse(x, y, 42, 31, "body")
    places = ((-15, -3, 17, 14), (20, -2, 9, 13), (2, 16, 7, 6))
    for (dx, dy, across, down), look in zip(places, looks):
        picture.ellipse(x + dx, y + dy, across, down, look)


if __name__ == "__main__":
    main()
