"""The phantom's 8 organs, and the vessels beside them that look like parts of them.

Places and half axes are (x, y, z) in mm as in `datasets.phantom.anatomy`; Hounsfield units vary from patient to
patient, within an organ, and overlap between organs and with bowel and vessels.
"""

from dataclasses import replace

import numpy as np

from datasets.phantom.shapes import Scene, ellipsoid, smooth_field, tube

CLASS_NAMES = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
AORTA, GALLBLADDER, LEFT_KIDNEY, RIGHT_KIDNEY, LIVER, PANCREAS, SPLEEN, STOMACH = range(1, 9)
NO_GALLBLADDER = 0.15


def paint_organs(scene: Scene, rng: np.random.Generator, abdomen: np.ndarray) -> None:
    """Paint all organs inside `abdomen`; the aorta also passes through the chest."""
    kidneys = {
        RIGHT_KIDNEY: _kidney(scene, rng, -1, height=-36),
        LEFT_KIDNEY: _kidney(scene, rng, 1, height=-22),
    }
    points = [(64, 0, 88), (74, -10, 56), (60, -34, 24), (28, -50, 4), (-8, -44, 0)]
    radii = np.array([28, 35, 29, 21, 13]) * rng.uniform(0.85, 1.12)
    stomach = tube(scene, _jitter(rng, points), radii) + _rough(scene, rng, 0.07)
    vein = _tissue(scene, rng, 120, 180)
    _paint_liver(scene, rng, abdomen & (kidneys[RIGHT_KIDNEY][0] > 1.14), vein)
    _paint_spleen(scene, rng, abdomen & (kidneys[LEFT_KIDNEY][0] > 1.1) & (stomach > 1.1))
    _paint_stomach(scene, rng, abdomen, stomach)
    for label, (body, hilum) in kidneys.items():
        _paint_kidney(scene, rng, abdomen, label, body, hilum)
    _paint_pancreas(scene, rng, abdomen, vein)
    _paint_gallbladder(scene, rng, abdomen)
    cava = _jitter(rng, [(-17, 12, -130), (-17, 8, 0), (-22, 0, 120)], 2)
    scene.paint((scene.hu > -700) & (tube(scene, cava, [11, 11, 13]) < 1), vein)
    _paint_aorta(scene, rng, abdomen)


def _jitter(rng: np.random.Generator, points: list[tuple[float, float, float]], spread: float = 4) -> np.ndarray:
    return np.array(points) + rng.normal(0, spread, (len(points), 3))


def _half_axes(rng: np.random.Generator, x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z]) * rng.uniform(0.9, 1.12, 3)


def _rough(scene: Scene, rng: np.random.Generator, amount: float, cells: tuple = (4, 6, 6)) -> np.ndarray:
    """What is added to an implicit shape to make its surface uneven."""
    return amount * smooth_field(rng, scene.shape, cells)


def _tissue(scene: Scene, rng: np.random.Generator, low: float, high: float, grain: float = 6) -> np.ndarray:
    """Hounsfield units of one tissue: a base between `low` and `high`, fine grain and a slow drift."""
    fine, slow = smooth_field(rng, scene.shape, (7, 26, 26)), smooth_field(rng, scene.shape, (3, 5, 5))
    return rng.uniform(low, high) + grain * fine + 4 * slow


def _kidney(scene: Scene, rng: np.random.Generator, side: int, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Implicit kidney, its upper pole leaning to the spine, and the hilum that opens towards the spine."""
    leaning = replace(scene, x=scene.x + side * 0.14 * (scene.z - height))  # in which the kidney stands upright
    centre, half = _jitter(rng, [(side * 62, 40, height)])[0], _half_axes(rng, 26, 24, 52)
    body = ellipsoid(leaning, centre, half) + _rough(scene, rng, 0.05)
    hilum = ellipsoid(leaning, centre - [side * 20, 4, 0], half * [0.55, 0.45, 0.42]) + _rough(scene, rng, 0.1)
    return body, hilum


def _paint_kidney(scene: Scene, rng: np.random.Generator, abdomen, label: int, body, hilum) -> None:
    cortex = _tissue(scene, rng, 150, 215)
    medulla = (body < 0.82) & (smooth_field(rng, scene.shape, (9, 22, 22)) > 0.1)
    scene.paint(abdomen & (body < 1.08), -95)
    scene.paint(abdomen & (body < 1), cortex, label)
    scene.paint(abdomen & medulla, cortex - rng.uniform(20, 60), label)
    scene.paint(abdomen & (hilum < 1), -80 + 30 * smooth_field(rng, scene.shape, (8, 24, 24)))
    scene.paint(abdomen & (hilum < 0.5), rng.uniform(0, 90))


def _paint_liver(scene: Scene, rng: np.random.Generator, abdomen: np.ndarray, vein: np.ndarray) -> None:
    """Two lobes over a sloping lower face, with branches of the hepatic and portal veins inside."""
    right, left = _jitter(rng, [(-76, -4, 44), (2, -44, 54)])
    lobes = [ellipsoid(scene, right, _half_axes(rng, 74, 84, 86)), ellipsoid(scene, left, _half_axes(rng, 70, 32, 38))]
    lower_face = -48 + 0.55 * np.maximum(scene.x + 120, 0) + _rough(scene, rng, 6, (3, 6, 6))
    beside_spine = ellipsoid(scene, (0, 44), (40, 44)) + _rough(scene, rng, 0.06) > 1
    inside = abdomen & (np.minimum(*lobes) + _rough(scene, rng, 0.05) < 1) & (scene.z > lower_face) & beside_spine
    scene.paint(inside, _tissue(scene, rng, 90, 130), LIVER)
    roots = _jitter(rng, [(-20, -2, 84), (-45, -12, 30)], 2)
    for i, end in enumerate([(-110, -30, 60), (-90, 30, 20), (-60, -50, 70)] * 2):
        branch = [roots[i % 2], _jitter(rng, [end], 10)[0]]
        scene.paint(inside & (tube(scene, branch, [6, 2]) < 1), vein, None)
    portal = _jitter(rng, [(-4, -14, -70), (-5, -15, 0), (-45, -12, 30)], 2)
    scene.paint(abdomen & (tube(scene, portal, [5, 6, 7]) < 1) & ~inside, vein)


def _paint_spleen(scene: Scene, rng: np.random.Generator, room: np.ndarray) -> None:
    spleen = ellipsoid(scene, _jitter(rng, [(100, 28, 38)])[0], _half_axes(rng, 34, 48, 46)) + _rough(scene, rng, 0.07)
    scene.paint(room & (spleen < 1), _tissue(scene, rng, 100, 145), SPLEEN)


def _paint_stomach(scene: Scene, rng: np.random.Generator, abdomen: np.ndarray, stomach: np.ndarray) -> None:
    """Wall and content: fluid, food or contrast medium under gas, which rises to the front of a patient lying down."""
    low, high = [(10, 40), (55, 95), (190, 280)][rng.choice(3, p=[0.5, 0.3, 0.2])]
    content = _tissue(scene, rng, low, high, grain=12)
    content[scene.y < rng.uniform(-58, -36)] = -900
    scene.paint(abdomen & (stomach < 1.06), -90)
    scene.paint(abdomen & (stomach < 1), _tissue(scene, rng, 70, 105), STOMACH)
    scene.paint(abdomen & (stomach < 0.86), content, STOMACH)


def _paint_pancreas(scene: Scene, rng: np.random.Generator, abdomen: np.ndarray, vein: np.ndarray) -> None:
    """A thin lobulated band from the duodenum to the spleen, with the splenic vein along its back."""
    points = _jitter(rng, [(-26, -6, -20), (-13, -15, -6), (6, -23, 8), (36, -13, 18), (64, 8, 28)], 3)
    behind = points[1:] + np.array([0, 11, -2])
    scene.paint(abdomen & (tube(scene, behind, [5, 4, 4, 3]) < 1), vein)
    pancreas = tube(scene, points, np.array([15, 13, 11, 12, 11]) * rng.uniform(0.92, 1.15))
    pancreas += _rough(scene, rng, 0.08) + _rough(scene, rng, 0.09, (10, 24, 24))
    scene.paint(abdomen & (pancreas < 1), _tissue(scene, rng, 75, 120, grain=10), PANCREAS)


def _paint_gallbladder(scene: Scene, rng: np.random.Generator, abdomen: np.ndarray) -> None:
    """A sac of bile under the liver that leans forward; some patients have lost theirs."""
    leaning = replace(scene, y=scene.y + 0.35 * (scene.z + 14))
    sac = ellipsoid(leaning, _jitter(rng, [(-48, -44, -14)])[0], _half_axes(rng, 16, 15, 29)) + _rough(scene, rng, 0.05)
    bile = _tissue(scene, rng, 0, 28, grain=3)
    if rng.uniform() >= NO_GALLBLADDER:
        scene.paint(abdomen & (sac < 1.1), 75)
        scene.paint(abdomen & (sac < 1), bile, GALLBLADDER)


def _paint_aorta(scene: Scene, rng: np.random.Generator, abdomen: np.ndarray) -> None:
    """A tube before the spine that forks into two iliac arteries, which bear no label."""
    fork, width = rng.uniform(-104, -84), rng.uniform(8.5, 12)
    points = _jitter(rng, [(6, 10, -130), (7, 6, -60), (6, 4, 20), (10, 14, 130)], 2)
    aorta = tube(scene, points, np.array([0.85, 0.9, 1, 1.1]) * width)
    blood = _tissue(scene, rng, 140, 260)
    for side in (-1, 1):
        iliac = tube(scene, [(6, 8, fork + 4), (6 + side * 26, 14, fork - 40)], [7, 6])
        scene.paint(abdomen & (iliac < 1) & (scene.z <= fork), blood)
    scene.paint((aorta < 1) & (scene.z > fork), blood, AORTA)
