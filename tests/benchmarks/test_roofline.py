"""The counts behind the roofline: against hand counts, the known cost of the network, and PyTorch's own autocast."""

import json
from collections import Counter
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from benchmarks import roofline
from benchmarks.operations import Operation, Recorder, group_of, record
from benchmarks.roofline import fused, main
from tests.support.fake_cuda import fake_device
from tests.support.manifests import quick_model


def recorded(function, *shapes, dtype=torch.bfloat16):
    with FakeTensorMode():
        tensors = [torch.empty(shape, dtype=dtype, requires_grad=True) for shape in shapes]
        with Recorder() as recorder:
            function(*tensors)
    return recorder.operations


def test_operations_and_bytes_by_hand():
    (product,) = recorded(torch.matmul, (64, 32), (32, 16))
    assert (group_of(product.name), product.flops) == ("matrix products", 2 * 64 * 32 * 16)
    assert product.bytes == 2 * (64 * 32 + 32 * 16 + 64 * 16)
    (total,) = recorded(
        lambda x, y: x.transpose(0, 1).view(8, 4) + y.expand(8, 4), (4, 8), (1, 4), dtype=torch.float32
    )[-1:]
    assert (total.flops, total.bytes) == (0, 4 * (32 + 4 + 32))  # what is expanded is read once


def test_a_depthwise_convolution_costs_three_times_as_much_with_its_gradients():
    def both(x, weight):
        F.conv2d(x, weight, padding=1, groups=8).sum().backward()

    forward, *_, backward = (o for o in recorded(both, (2, 8, 10, 12), (8, 1, 3, 3)) if "convolution" in o.name)
    assert forward.flops == 2 * 9 * 2 * 8 * 10 * 12
    assert backward.flops == 2 * forward.flops


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("matrix products", "mm addmm bmm baddbmm"),
        ("convolutions", "convolution mkldnn_convolution cudnn_convolution convolution_backward thnn_conv2d"),
        ("attention", "_scaled_dot_product_flash_attention_for_cpu _efficient_attention_forward"),
        ("optimizer", "_fused_adamw_ _foreach_add_"),
        ("selections", "topk gather index_select index_add_"),
        (
            "norms and reductions",
            "native_layer_norm_backward native_batch_norm linalg_vector_norm _log_softmax sum mean",
        ),
        ("copies and casts", "_to_copy copy_ cat clone"),
        ("element by element", "add mul gelu gelu_backward sigmoid exp normal_ addcmul"),
    ],
)
def test_operations_are_grouped_by_their_names(group, names):
    assert {group_of(name) for name in names.split()} == {group}


def test_fused_kernels_do_not_write_what_only_they_read():
    chain = [
        Operation("add", 0, {1: 8}, {2: 8}),
        Operation("mul", 0, {2: 8, 3: 8}, {4: 8}),
        Operation("exp", 0, {4: 8}, {5: 8}),
    ]
    product = Operation("mm", 100, {4: 8}, {6: 8})
    kernels = fused([*chain, product, Operation("exp", 0, {6: 8}, {7: 8})])
    assert [k.name for k in kernels] == ["fused", "mm", "fused"]
    assert kernels[0].reads == {1: 8, 3: 8}
    assert kernels[0].writes == {4: 8, 5: 8}  # 4 is read later; 5 is a result


@cache
def one_image(work):
    return record(work, 1, 224)


def test_the_network_costs_what_it_is_known_to_and_the_table_adds_up(tmp_path, monkeypatch):
    """15.9 GFLOP an image of 224x224 forward; three times as much with gradients."""
    monkeypatch.setattr(roofline, "record", lambda work, batch, size: one_image(work))
    main(["--smoke", "--output", str(tmp_path / "out.json")])
    train, infer = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["results"]
    assert infer["flops"] == pytest.approx(15.9e9, rel=0.01)
    assert train["flops"] == pytest.approx(3 * infer["flops"], rel=0.02)
    for gpu_figures in (train["H100"], infer["H200"]):
        eager, compiled = gpu_figures["eager"], gpu_figures["compiled, estimate"]
        assert eager["expected_s"] > compiled["expected_s"] > compiled["floor_s"] > 0
        assert eager["kernels"] == sum(group["kernels"] for group in gpu_figures["groups"].values())
        assert eager["floor_s"] == pytest.approx(sum(group["floor_s"] for group in gpu_figures["groups"].values()))


def test_the_kernels_are_those_of_autocast():
    """All but attention, which PyTorch's fake CUDA takes apart."""

    class Named(Recorder):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and not function.is_view:
                names[function.overloadpacket.__name__] += 1
            return result

    names, model = Counter(), quick_model().eval()
    with fake_device("cuda:0"), torch.no_grad():
        model, image = model.to("cuda:0"), torch.empty(1, 1, 224, 224, device="cuda:0")
        with Named(), torch.autocast("cuda", torch.bfloat16):
            model(image)
    counted = Counter(o.name for o in one_image("infer"))
    for name in ("mm", "addmm", "convolution", "add", "index_select", "gelu", "cumsum", "addcmul"):
        assert counted[name] == names[name] > 0, name
    assert counted["_scaled_dot_product_flash_attention_for_cpu"] == 12  # the blocks; the skips' is taken apart
    assert 0.85 * names["_to_copy"] < counted["_to_copy"] <= names["_to_copy"]
