"""The table of a study as a page in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from tools.compare.statistics import ALL_CLASSES
from tools.compare.text import of_groups
from utils.errors import counted

HEADER = ("arm", "seeds", "Dice %", "95 %", "HD95", "difference to {} [95 %]", "p (Holm)")
HEADER += ("parameters", "GFLOP", "s/epoch", "peak GiB")


def in_percent(ci95: Sequence[float | None], sign: str = "") -> str:
    return "–" if None in ci95 else f"[{100 * ci95[0]:{sign}.1f}, {100 * ci95[1]:{sign}.1f}]"


def difference_of(pair: Mapping[str, Any]) -> str:
    """`+2.1 [-0.5, +4.7]`, percentage points; a dash for no case."""
    return "–" if pair["difference"] is None else f"{100 * pair['difference']:+.1f} {in_percent(pair['ci95'], '+')}"


def as_markdown(study: dict[str, Any]) -> str:
    """The table as a page: what was run, a row an arm, what a reader must be told."""
    plan, comparison = study["plan"], study["comparison"]
    dice, *distances = comparison["metrics"]
    first = next(iter(plan["arms"]))
    pairs = [pair for pair in comparison["pairs"] if (pair["metric"], pair["class_name"]) == (dice, ALL_CLASSES)]
    units = "cases" if comparison["over"] == "cases" else "groups"
    against = {pair["second"]: pair for pair in pairs}
    lines = [
        f"`train.py {' '.join((*plan['data'], *plan['train']))}`, seeds {', '.join(map(str, plan['seeds']))}; "
        f"{comparison['cases']} cases{of_groups(comparison)} of the {study['part']} part; {comparison['split']}.",
        "",
        f"| {' | '.join(HEADER).format(first)} |",
        "|---" * len(HEADER) + "|",
    ]
    for setting in comparison["settings"]:
        name, cost = setting["name"], study["costs"][setting["name"]]
        means = setting["means"][ALL_CLASSES]
        mean, sd, ci95 = (means[dice][key] for key in ("mean", "sd", "ci95"))
        distance = means[distances[0]]["mean"] if distances else None
        pair, seconds = against.get(name), cost["seconds_per_epoch"]
        cells = [
            name,
            str(setting["num_seeds"]),
            f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else ""),
            in_percent(ci95),
            "–" if distance is None else f"{distance:.1f} {distances[0].rpartition('_')[2]}",
            difference_of(pair) if pair else "–",
            f"{pair['p_holm']:.3g}" if pair and pair["p_holm"] is not None else "–",
            f"{cost['parameters'] / 1e6:.2f} M",
            f"{cost['gflop']:.2f}",
            "–" if seconds is None else f"{seconds:.1f}",
            f"{cost['peak_bytes'] / 2**30:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    missing = ", ".join(f"{arm} ({', '.join(map(str, seeds))})" for arm, seeds in study["missing"].items())
    notes = [f"Not finished, and not in the table: {missing} (seeds)."] if missing else []
    if not pairs and len(comparison["settings"]) > 1:
        notes.append(f"No tests: they are against {first}, which has no finished seed in common with another arm.")
    forms: dict[str, list[str]] = {}
    for arm, cost in study["costs"].items():
        forms.setdefault(f"{'x'.join(map(str, cost['img_size']))}, {cost['epochs']} epochs", []).append(arm)
    if len(forms) > 1:
        listed = (f"{', '.join(arms)} {form}" for form, arms in forms.items())
        notes.append(f"Arms differ: {'; '.join(listed)}.")
    if comparison["parts"] > 1:
        notes.append(
            f"Each seed drew its folds and validated on other cases, {comparison['parts']} parts in all: means weigh "
            "seeds alike, and arms with different seeds have different cases. Differences weigh cases alike."
        )
    if pairs:
        notes.append(
            f"Difference to {first}, and p: case by case in each seed that both arms have, averaged over these seeds; "
            f"interval from resampled {units}; Wilcoxon's signed-rank test over {units}, Holm's correction over arms."
        )
    for arm, pair in comparison["unseen"].items():
        chosen = f"{arm} was chosen after seed {plan['chosen_after'][arm]} of the other arms, which is no test of it"
        notes.append(f"{chosen}. Over the other seeds: {difference_of(pair)}, p {pair['p']:.3g} (not corrected).")
    notes += comparison["warnings"]
    commits = sorted({machine["commit"] for machine in study["machines"]})
    if len(commits) > 1:
        notes.append(f"The trainings ran at the commits {', '.join(commits)}.")
    if unknown := study["without_machine"]:
        notes.append(f"{counted(unknown, 'training')} did not record machine and commit (results/README.md).")
    memory = {"GPU": "what PyTorch had allocated on the GPU", "process": "what the training process held"}
    kinds = sorted({cost["memory"] for cost in study["costs"].values()})
    notes.append(
        "s/epoch: the whole training with its start and validation over its epochs, of the fastest seed, because other "
        f"work on the machine slows a run. Peak memory: {' or '.join(memory[kind] for kind in kinds)}."
    )
    return "\n".join([*lines, "", *(f"* {note}" for note in notes)]) + "\n"
