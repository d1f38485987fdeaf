"""The phantom's patients: a CT-like upper abdomen in the portal venous phase, painted structure by structure.

Here the trunk, chest, bowel and spine; the organs are in `datasets.phantom.organs`. Axes and letters as in
`datasets.phantom.shapes`; (x, y, z) is (towards the patient's left, towards the back, towards the head) in mm.
"""

import numpy as np

from datasets.phantom.organs import paint_organs
from datasets.phantom.shapes import Scene, crop, ellipsoid, empty_scene, smooth_field, tube


def draw_patient(rng: np.random.Generator, size: int, slices: int) -> Scene:
    """One patient; what is painted later covers what was there."""
    scene = empty_scene(rng, size, slices)
    cavity = _paint_trunk(scene, rng)
    diaphragm = _diaphragm(scene, rng)
    abdomen = cavity & (scene.z < diaphragm - 3)
    _paint_chest(scene, rng, cavity, diaphragm)
    _paint_bowel(scene, rng, abdomen)
    paint_organs(scene, rng, abdomen)
    _paint_spine(scene, rng)
    return scene


def _paint_trunk(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Couch, skin, fat, muscle and ribs; returns the cavity inside them."""
    outline = ellipsoid(scene, (0, 0), (165, 114), power=2.4)
    depth = 114 * (1 - outline) * (1 + 0.35 * np.abs(scene.x / 165))
    fat = rng.uniform(6, 18) * (1 + 0.25 * smooth_field(rng, scene.shape, (2, 4, 4)))
    muscle = fat + rng.uniform(9, 13)
    couch = np.abs(ellipsoid(scene, (0, -60), (260, 192)) - 1) * 192 < 2.5
    scene.paint(couch & (scene.y > 60) & (depth < -3), 20)
    scene.paint(depth > 0, 15)
    scene.paint(depth > 3, -98 + 6 * smooth_field(rng, scene.shape, (6, 12, 12)))
    scene.paint(depth > fat, 55 + 12 * smooth_field(rng, scene.shape, (6, 24, 24)))
    cavity = depth > muscle
    scene.paint(cavity, -98 + 14 * smooth_field(rng, scene.shape, (8, 30, 30)))
    # Ribs run down towards the front; a slice cuts each of them obliquely.
    level = scene.z - 0.4 * scene.y
    phase = np.abs((level / 28 + rng.uniform()) % 1 - 0.5) * 28
    wall = np.abs(depth - (fat + muscle) / 2) < 4.5
    ribs = wall & (phase < 5.5) & (level > -35) & ((scene.y > -20) | (np.abs(scene.x) > 60))
    scene.paint(ribs, 260 + 60 * smooth_field(rng, scene.shape, (10, 30, 30)))
    return cavity


def _diaphragm(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Height of the diaphragm's two domes over each point, the right one higher."""
    right, left = rng.uniform(92, 104), rng.uniform(82, 94)
    front = ((scene.y + 10) / 75) ** 2 * 70
    return np.maximum(right - ((scene.x + 65) / 70) ** 2 * 55, left - ((scene.x - 74) / 80) ** 2 * 55) - front


def _paint_chest(scene: Scene, rng: np.random.Generator, cavity: np.ndarray, diaphragm: np.ndarray) -> None:
    """Lung bases with a few vessels, the heart's apex, the diaphragm's own muscle."""
    above = cavity & (scene.z > diaphragm)
    mediastinum = (np.abs(scene.x) < 26) & (scene.y > -10)
    scene.paint(cavity & (np.abs(scene.z - diaphragm) < 4), 50)
    lung = above & ~mediastinum
    scene.paint(lung, -820)
    scene.paint(lung & (smooth_field(rng, scene.shape, (10, 36, 36)) > 1.9), 40)
    heart = ellipsoid(scene, (22 + rng.normal(0, 4), -38, 112), (58, 40, 34))
    scene.paint(above & (heart < 1), 140 + 10 * smooth_field(rng, scene.shape, (4, 12, 12)))
    scene.paint(above & (np.abs(heart - 1.04) < 0.05), -90)


def _paint_bowel(scene: Scene, rng: np.random.Generator, abdomen: np.ndarray) -> None:
    """Colon, small bowel and duodenum: gas, fluid, contrast medium, and content as bright as organs."""
    drop = rng.normal(0, 6)
    tubes = [
        ([(-98, 8, -130), (-96, 2, -70), (-84, -20, -38 + drop)], [23, 21, 19]),
        ([(-84, -20, -38 + drop), (-50, -62, -52 + drop), (20, -66, -56 + drop), (80, -42, -8)], [19, 18, 16, 16]),
        ([(80, -42, -8), (104, 12, -30), (106, 22, -130)], [16, 14, 13]),
        ([(-36, -26, 2), (-52, -10, -16), (-40, -2, -44), (2, -6, -50)], [11, 12, 11, 9]),
    ]
    for _ in range(26):
        start = np.array([rng.uniform(-72, 78), rng.uniform(-72, -8), rng.uniform(-115, -18)])
        tubes.insert(0, ([start, start + rng.normal(0, [22, 14, 10])], rng.uniform(9, 14, 2)))
    for points, radii in tubes:
        part, place = crop(scene, points, 1.4 * max(radii))
        cells = [max(2, round(length)) for length in np.ptp(points, axis=0)[::-1] / (28, 18, 18)]
        gut = tube(part, points, radii) + 0.1 * smooth_field(rng, part.shape, cells)
        kind = rng.choice(4, p=[0.3, 0.35, 0.15, 0.2])  # fluid, organ-like, contrast medium, gas over fluid
        base = [rng.uniform(5, 40), rng.uniform(80, 140), rng.uniform(190, 300), rng.uniform(5, 60)][kind]
        content = base + 14 * smooth_field(rng, part.shape, cells)
        surface = np.mean([point[1] for point in points]) + rng.uniform(-4, 4)
        if kind == 3:
            content[part.y < surface] = -900
        part.paint(abdomen[place] & (gut < 1), rng.uniform(70, 105))
        part.paint(abdomen[place] & (gut < 0.8), content)


def _paint_spine(scene: Scene, rng: np.random.Generator) -> None:
    """Muscles of the back, psoas, vertebrae with discs, canal and processes."""
    muscle = 60 + 12 * smooth_field(rng, scene.shape, (6, 24, 24))
    free = (scene.label == 0) & (scene.hu > -700)
    for side in (-1, 1):
        scene.paint(free & (ellipsoid(scene, (side * 33, 76), (30, 20)) < 1), muscle)
        width = np.clip(13 - 0.11 * (scene.z + 20), 1, 24)
        psoas = np.hypot(scene.x - side * 37, scene.y - 40) / width
        scene.paint(free & (psoas < 1) & (scene.z < 20), muscle)
    bone = 190 + 35 * smooth_field(rng, scene.shape, (12, 30, 30))
    body = ellipsoid(scene, (0, 40), (23, 18))
    disc = ((scene.z / 36 + rng.uniform()) % 1) < 0.2
    scene.paint(body < 1, 330)
    scene.paint(body < 0.86, bone)
    scene.paint((body < 1) & disc, 85)
    behind = np.hypot(scene.x, scene.y - 66)
    arch = (np.abs(behind - 11.5) < 3.5) & ~disc
    spinous = (np.abs(scene.x) < 3.5) & (scene.y > 74) & (scene.y < 96) & ~disc
    transverse = (np.abs(scene.y - 62) < 3.5) & (np.abs(scene.x) < 36) & (np.abs(scene.x) > 10) & disc
    scene.paint(behind < 10, 25)
    scene.paint((arch | spinous | transverse) & free, 320)
