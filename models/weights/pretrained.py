"""Initialisation from ImageNet weights: BiFormer-Base for most of the network, VSSD-Base for its encoder.

The published network took from BiFormer-Base what agrees in name and shape: stem, down-sampling and the encoder's
norms (form `published`). More of that file fits under other names: its position convolutions are our `cpe1`, its MLPs
our encoder's MLPs, and its stages 2, 1 and 0 our decoder's blocks (form `extended`). VSSD-Base (Shi et al. 2024) has
our encoder's mixers and convolutions. Its MLPs are wider than ours, so nothing is taken from them.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from models.weights.released import LoadSummary, bare_state, dead_stage, released_name
from utils.errors import UserError

PUBLISHED = (
    # released name of an entry of ours     its name in BiFormer-Base
    (r"(downsample_layers\.\d\.)", r"\1"),
    (r"(stages\.\d\.\d\.norm[12]\.)", r"\1"),
)
FORMS = {
    "published": PUBLISHED,
    "extended": (
        *PUBLISHED,
        (r"(stages\.\d\.\d)\.cpe1\.", r"\1.pos_embed."),
        (r"(stages\.\d\.\d)\.mlp\.fc1\.", r"\1.mlp.0."),
        (r"(stages\.\d\.\d)\.mlp\.fc2\.", r"\1.mlp.3."),
        (r"layers_up\.1\.blocks\.", r"stages.2."),
        (r"layers_up\.2\.blocks\.", r"stages.1."),
        (r"layers_up\.3\.blocks\.", r"stages.0."),
    ),
}
# For VSSD-Base: alone, or beside BiFormer-Base, which then gives the norms.
VSSD_ALONE = ((r"stages\.(\d)\.(\d)\.(attn|cpe1|cpe2|norm1|norm2)\.", r"layers.\1.blocks.\2.\3."),)
VSSD_BESIDE = ((r"stages\.(\d)\.(\d)\.(attn|cpe1|cpe2)\.", r"layers.\1.blocks.\2.\3."),)

# Why an entry of either file has no place in the network (the first that matches).
REASONS = (
    (r"(norm|head)\.", "the ImageNet classifier"),
    (r"(stages|layers)\.3\.", "a fourth encoder stage, which the network does not build"),
    (r"layers\.\d\.blocks\.[01]\.mlp\.", "MLPs of ratio 4, where ours have 3"),
    (r"(stages\.\d|layers\.\d\.blocks)\.\d+\.", "blocks beyond the depth of ours"),
    (r"", "layers that the network does not have"),
)


def initialise(
    model: nn.Module,
    biformer: Mapping[str, object] | None,
    vssd: Mapping[str, object] | None,
    form: str = "extended",
    biformer_source: str = "BiFormer-Base",
    vssd_source: str = "VSSD-Base",
) -> list[LoadSummary]:
    """Copy what fits from the given checkpoints into `model`; return a summary for each.

    Where both have a tensor, VSSD-Base gives the encoder's mixers and convolutions and BiFormer-Base the rest.

    raises: UserError, before anything is copied, when less than half of the expected tensors of a file fit: it
    belongs to another network, and training would start from scratch unnoticed
    """
    from_vssd = {} if vssd is None else wanted(model, VSSD_ALONE if biformer is None else VSSD_BESIDE)
    plans = []
    if biformer is not None:
        names = wanted(model, FORMS[form])
        yielded = from_vssd.keys() & names.keys()
        extended = wanted(model, FORMS["extended"]).values()
        others = dict.fromkeys(extended, "fit, but only the form `extended` takes them")
        if form == "published":  # the original code also copied them, to where no forward pass reads them
            dead = (name for name in dead_stage() if any(re.match(pattern, name) for pattern, _ in PUBLISHED))
            others |= dict.fromkeys(dead, "fit the fourth encoder stage of the published code, never called")
        names = {own: there for own, there in names.items() if own not in yielded}
        notes = [f"{len(yielded)} tensors that it also has are given by VSSD-Base"] if yielded else []
        plans.append(plan(model, names, biformer, biformer_source, others, notes))
    if vssd is not None:
        others = dict.fromkeys(wanted(model, VSSD_ALONE).values(), "given by BiFormer-Base instead")
        notes = [] if model.ssd == "noncausal" else [f"trained with the noncausal SSD; the network runs {model.ssd}"]
        plans.append(plan(model, from_vssd, vssd, vssd_source, others, notes))
    for fitting, _ in plans:
        model.load_state_dict(model.state_dict() | fitting)
    return [summary for _, summary in plans]


def wanted(model: nn.Module, rules: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Map our names to the names in a file, by the first of the `rules` that fits."""
    names = {}
    for own in model.state_dict():
        if ".branch." in own:  # of a ConvBlock, which no file has
            continue
        released = released_name(own)
        for pattern, replacement in rules:
            if match := re.match(pattern, released):
                names[own] = match.expand(replacement) + released[match.end() :]
                break
    return names


def plan(
    model: nn.Module,
    names: dict[str, str],
    checkpoint: Mapping[str, object],
    source: str,
    others: dict[str, str],
    notes: list[str],
) -> tuple[dict[str, Tensor], LoadSummary]:
    """Choose the tensors of `checkpoint` that fit, and account for all its entries.

    names: our name of an entry -> its name in the file
    others: name in the file -> why it is left out, where REASONS has no better one
    out: our name -> tensor, summary
    """
    own, state = model.state_dict(), bare_state(checkpoint, source)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    fitting = {
        name: tensors[there]
        for name, there in names.items()
        if there in tensors and tensors[there].shape == own[name].shape
    }
    if 2 * len(fitting) < len(names):
        raise UserError(
            f"{source}: only {len(fitting)} of the {len(names)} tensors that it should give fit the network; among its "
            f"{len(state)} entries are {', '.join(sorted(state)[:2])}. Give the published BiFormer-Base or VSSD-Base "
            "weights (see pretrained_ckpt/README.md), or ask for no pretrained weights"
        )
    if ruined := [
        names[name]
        for name, value in fitting.items()
        if value.is_floating_point() != own[name].is_floating_point() or not value.isfinite().all()
    ]:
        raise UserError(
            f"{source}: {len(ruined)} tensors, such as {ruined[0]}, do not hold finite floating-point values; "
            "the file is damaged: copy or download it again"
        )
    taken = {names[name] for name in fitting}
    left_out: dict[str, tuple[int, int]] = {}
    for there in state.keys() - taken:
        general = next(reason for pattern, reason in REASONS if re.match(pattern, there))
        reason = "of another shape here" if there in names.values() else others.get(there, general)
        count, values = left_out.get(reason, (0, 0))
        left_out[reason] = (count + 1, values + (tensors[there].numel() if there in tensors else 0))
    if twice := len(fitting) - len(taken):
        notes = [f"{twice} of its entries serve twice, in the encoder and the decoder", *notes]
    if absent := sorted(set(names.values()) - state.keys()):
        notes = [*notes, f"not in the file: {len(absent)} entries, such as {absent[0]}"]
    values, total = (sum(value.numel() for value in part.values()) for part in (fitting, own))
    return fitting, LoadSummary(source, len(fitting), values, total, dict(sorted(left_out.items())), tuple(notes))
