"""Initialisation from BiFormer-Base and VSSD-Base: which tensors, in which place, from which file, and refusals."""

import pytest
import torch

from models.weights.pretrained import FORMS, initialise, wanted
from tests.support.manifests import quick_model, shapes_of, state_of
from tests.support.shallow import shallow_model
from utils import checkpoint
from utils.errors import UserError

UNTOUCHED = -7.0


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Thousands of small copies are faster without threads, above all on a machine that is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network():
    return quick_model()


@pytest.fixture
def model(network):
    with torch.no_grad():
        for value in network.state_dict().values():
            value.fill_(UNTOUCHED)
    network.ssd = "causal"
    return network


@pytest.fixture(scope="module")
def biformer():
    return state_of("biformer_base")


@pytest.fixture(scope="module")
def vssd():
    """Its numbers follow BiFormer's, so that a value tells its file."""
    return {name: value + 1000 for name, value in state_of("vssd_base").items()}


def sources(model, **files) -> dict[str, tuple[str, str]]:
    """For every entry of the model that was written: the file and the name there, told by the value."""
    names = {}
    for file, state in files.items():
        names |= {float(value.flatten()[0]): (file, name) for name, value in state.items()}
    written = {}
    for own, value in model.state_dict().items():
        assert (value == value.flatten()[0]).all(), own
        if float(value.flatten()[0]) != UNTOUCHED:
            written[own] = names[float(value.flatten()[0])]
    return written


def block_entries(*leaves: str) -> list[str]:
    return [f"{leaf}.{kind}" for leaf in leaves for kind in ("weight", "bias")]


def expected_published() -> dict[str, str]:
    """Ours → BiFormer-Base, spelt out: stem, down-sampling, and the encoder's two norms."""
    names = {}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for own, there, indices in (
        ("stem", "downsample_layers.0", ((0, 1), (3, 4))),
        ("downsample.0", "downsample_layers.1", ((0, 1),)),
        ("downsample.1", "downsample_layers.2", ((0, 1),)),
        ("downsample.2", "downsample_layers.3", ((0, 1),)),
    ):
        for conv, batch_norm in indices:
            names |= {f"{own}.{conv}.{kind}": f"{there}.{conv}.{kind}" for kind in ("weight", "bias")}
            names |= {f"{own}.{batch_norm}.{kind}": f"{there}.{batch_norm}.{kind}" for kind in norm}
    for i in range(3):
        for j in range(2):
            for entry in block_entries("norm1", "norm2"):
                names[f"encoder.{i}.{j}.{entry}"] = f"stages.{i}.{j}.{entry}"
    return names


def expected_extended() -> dict[str, str]:
    """The published ones, the encoder's position convolution and MLPs, and every decoder block."""
    names = expected_published()
    for i in range(3):
        for j in range(2):
            for own, there in (("cpe1", "pos_embed"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3")):
                for kind in ("weight", "bias"):
                    names[f"encoder.{i}.{j}.{own}.{kind}"] = f"stages.{i}.{j}.{there}.{kind}"
    for own_stage, stage, depth in ((0, 2, 8), (1, 1, 2), (2, 0, 2)):
        for j in range(depth):
            for leaf, there in (("attn.qkv", "attn.qkv.qkv"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3")):
                for kind in ("weight", "bias"):
                    names[f"decoder.{own_stage}.blocks.{j}.{leaf}.{kind}"] = f"stages.{stage}.{j}.{there}.{kind}"
            for entry in block_entries("pos_embed", "norm1", "norm2", "attn.lepe", "attn.wo"):
                names[f"decoder.{own_stage}.blocks.{j}.{entry}"] = f"stages.{stage}.{j}.{entry}"
    return names


MIXER = [*(f"attn.{n}" for n in ("dt_bias", "A_log", "D")), "attn.in_proj.weight", "attn.out_proj.weight"]
MIXER += block_entries("attn.conv2d", "attn.norm")


def expected_vssd(*leaves: str) -> dict[str, str]:
    entries = MIXER + block_entries(*leaves)
    blocks = [(i, j) for i in range(3) for j in range(2)]
    return {f"encoder.{i}.{j}.{e}": f"layers.{i}.blocks.{j}.{e}" for i, j in blocks for e in entries}


EXPECTED = {"published": expected_published(), "extended": expected_extended()}


@pytest.mark.parametrize(
    ("form", "tensors", "values", "fraction"),
    [("published", 59, 3_539_237, 0.151), ("extended", 287, 18_773_669, 0.801)],
)
def test_biformer_fills_exactly_these_entries(model, biformer, form, tensors, values, fraction):
    (summary,) = initialise(model, biformer, None, form)
    assert sources(model, b=biformer) == {own: ("b", there) for own, there in EXPECTED[form].items()}
    assert (summary.tensors, summary.values) == (tensors, values) == (len(EXPECTED[form]), summary.values)
    assert summary.values / summary.total == pytest.approx(fraction, abs=5e-4)


def test_extended_is_the_default(model, biformer):
    assert initialise(model, biformer, None)[0].tensors == 287


def test_the_published_form_is_what_agrees_by_name_and_shape(biformer):
    """67 entries, counted on the files themselves: 59 live, 8 in the stage that is never called."""
    released = {name.removeprefix("bra_unet."): shape for name, shape in shapes_of("synapse").items()}
    agree = {name for name, shape in shapes_of("biformer_base").items() if released.get(name) == shape}
    dead = {name for name in agree if name.startswith("stages.3.")}
    assert (len(agree), len(dead)) == (67, 8)
    assert agree - dead == set(expected_published().values())


def test_vssd_alone_fills_the_encoder_but_no_mlp(model, vssd):
    (summary,) = initialise(model, None, vssd)
    expected = expected_vssd("cpe1", "cpe2", "norm1", "norm2")
    assert sources(model, v=vssd) == {own: ("v", there) for own, there in expected.items()}
    assert (summary.tensors, summary.values) == (102, 2_578_878)
    assert not any("mlp" in own for own in expected)


@pytest.mark.parametrize(("form", "from_biformer"), [("published", 59), ("extended", 275)])
def test_both_files_share_the_network(model, biformer, vssd, form, from_biformer):
    summaries = initialise(model, biformer, vssd, form)
    expected = {own: ("b", there) for own, there in EXPECTED[form].items()}
    expected |= {own: ("v", there) for own, there in expected_vssd("cpe1", "cpe2").items()}
    assert sources(model, b=biformer, v=vssd) == expected
    assert [s.tensors for s in summaries] == [from_biformer, 78]
    assert [s.source for s in summaries] == ["BiFormer-Base", "VSSD-Base"]
    assert sum(s.tensors for s in summaries) == len(expected)


def test_without_files_nothing_happens(model):
    assert initialise(model, None, None) == []
    assert sources(model) == {}


# --- the summary -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["published", "extended"])
@pytest.mark.parametrize("beside", [False, True])
def test_every_entry_of_a_file_is_accounted_for_once(model, biformer, vssd, form, beside):
    summaries = initialise(model, biformer, vssd if beside else None, form)
    for summary, state in zip(summaries, (biformer, vssd)):
        used = {there for own, (_, there) in sources(model, b=biformer, v=vssd).items() if there in state}
        left_out = [sum(counts) for counts in zip(*summary.left_out.values())]
        assert len(used) + left_out[0] == len(state)
        assert sum(state[n].numel() for n in used) + left_out[1] == sum(value.numel() for value in state.values())


def test_the_summary_of_the_published_form(model, biformer):
    text = str(initialise(model, biformer, None, "published", "files/biformer_base_best.pth")[0])
    assert text.splitlines()[0] == (
        "files/biformer_base_best.pth: loaded 59 tensors, 3,539,237 values, 15.1% of the network"
    )
    assert "left out 8 tensors, 6,144 values: fit the fourth encoder stage of the published code, never called" in text
    assert "left out 52 tensors, 23,725,056 values: a fourth encoder stage" in text
    assert "left out 168 tensors, 12,887,808 values: fit, but only the form `extended` takes them" in text
    assert "left out 224 tensors, 15,879,168 values: blocks beyond the depth of ours" in text
    assert "left out 7 tensors, 772,073 values: the ImageNet classifier" in text


def test_the_summary_of_both(model, biformer, vssd):
    first, second = (str(s) for s in initialise(model, biformer, vssd, "extended"))
    assert "12 tensors that it also has are given by VSSD-Base" in first
    assert "48 of its entries serve twice" in first
    assert "only the form" not in first
    assert "left out 24 tensors, 5,376 values: given by BiFormer-Base instead" in second
    assert "left out 24 tensors, 3,103,296 values: MLPs of ratio 4, where ours have 3" in second
    assert "trained with the noncausal SSD; the network runs causal" in second
    model.ssd = "noncausal"
    assert "noncausal" not in str(initialise(model, None, vssd)[0])


def test_the_readme_shows_what_is_printed(model, biformer):
    readme = (checkpoint.REPOSITORY / "pretrained_ckpt" / "README.md").read_text(encoding="utf-8")
    (summary,) = initialise(model, biformer, None, "extended", "pretrained_ckpt/biformer_base_best.pth")
    assert "\n".join(f"    {line}" for line in str(summary).splitlines()) in readme


def test_what_is_absent_or_of_another_shape_is_said(model, biformer):
    state = {name: value for name, value in biformer.items() if name != "stages.0.1.norm1.bias"}
    state |= {"downsample_layers.0.0.weight": torch.zeros(48, 1, 3, 3), "downsample_layers.0.0.bias": "text"}
    state["downsample_layers.0.3.bias"] = torch.zeros(1, 96)  # as many values as ours
    (summary,) = initialise(model, state, None, "published")
    assert summary.tensors == 55
    assert summary.left_out["of another shape here"] == (3, 48 * 9 + 96)
    assert "not in the file: 1 entries, such as stages.0.1.norm1.bias" in str(summary)
    assert (model.stem[0].weight == UNTOUCHED).all()


# --- files and refusals ------------------------------------------------------------------------------


def test_the_whole_way_from_a_file_in_the_old_format(model, biformer, tmp_path):
    torch.save({"model": biformer, "epoch": 299}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    (summary,) = initialise(model, checkpoint.read(tmp_path / "a.pth"), None)
    assert summary.tensors == 287
    assert len(sources(model, b=biformer)) == 287


@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"model": s, "model_ema": {}}, lambda s: {"state_dict": s}])
def test_nesting_and_prefix(model, biformer, nest):
    state = nest({f"module.{name}": value for name, value in biformer.items()})
    assert initialise(model, state, None)[0].tensors == 287


@pytest.mark.parametrize("form", ["published", "extended"])
@pytest.mark.parametrize(
    "swap", [lambda b, v: (v, None), lambda b, v: (None, b), lambda b, v: (b, b), lambda b, v: (v, v)]
)
def test_swapped_files_are_refused_and_nothing_is_copied(model, biformer, vssd, form, swap):
    with pytest.raises(UserError, match=r"(?s)\.pth: only \d+ of the \d+ tensors .* no pretrained weights"):
        initialise(model, *swap(biformer, vssd), form, "b.pth", "v.pth")
    assert sources(model) == {}


def test_convolution_blocks_are_not_looked_for_in_a_file():
    names = wanted(shallow_model(2, decoder="conv"), FORMS["extended"])
    assert names
    assert not [name for name in names if ".branch." in name]


def test_half_of_a_file_is_the_limit(model, vssd):
    """VSSD-Base gives 102 entries: 51 are a start, 50 are not."""
    names = list(expected_vssd("cpe1", "cpe2", "norm1", "norm2").values())
    assert initialise(model, None, {name: vssd[name] for name in names[:51]})[0].tensors == 51
    with pytest.raises(UserError, match=r"VSSD-Base: only 50 of the 102 tensors"):
        initialise(model, None, {name: vssd[name] for name in names[:50]})


def test_a_smaller_biformer_is_refused(model, biformer):
    smaller = {name: torch.zeros([max(side * 2 // 3, 1) for side in value.shape]) for name, value in biformer.items()}
    with pytest.raises(UserError, match=r"only \d+ of the 287 tensors"):
        initialise(model, smaller, None)


def test_an_empty_checkpoint_is_refused(model):
    with pytest.raises(UserError, match="only 0 of the 287"):
        initialise(model, {"model": {}}, None)
