"""The whole program on a GPU that is not there: no tensors of two devices meet, and the host does not wait.

CUDA: a batch is copied to the device once, and values come home only at a log interval and at the end of
validation and inference. Apple's GPU: no float64 in anything that runs there, and no int64 added at indices.
"""

import pytest
import torch

from tests.devices import programs
from tests.support.fake_cuda import fake_device

CUDA, APPLE = "cuda:0", "mps:0"
FORMS = ("causal", "noncausal")  # bidirectional is causal twice


def places(events):
    return [event.place for event in events]


# --- training on CUDA ----------------------------------------------------------------------------


@pytest.mark.parametrize(("num_classes", "form", "precision"), [(9, "causal", "bf16"), (1, "noncausal", "fp16")])
def test_a_training_step_copies_its_batch_and_nothing_else(num_classes, form, precision):
    with fake_device(CUDA) as watch:
        run = programs.run_of(programs.network(num_classes, form), CUDA, precision, ema=0.9)
        with programs.stand_in_for_backward(run):
            loss = programs.training_step(run, num_classes, clip_grad=1.0)
        assert loss.device == torch.device(CUDA)
    assert places(watch.copies) == [programs.BATCH_ARRIVES] * 2, [*map(str, watch.copies)]


@pytest.mark.parametrize(("form", "recompute"), [*((form, False) for form in FORMS), ("causal", True)])
def test_gradients_reach_every_weight_without_waiting(form, recompute):
    with fake_device(CUDA, disguised=True) as watch:
        run = programs.run_of(programs.network(9, form, recompute), CUDA)
        run.optimizer.zero_grad = lambda **_: None
        programs.training_step(run, accumulate=2)
        assert all(p.grad is not None and p.grad.device == torch.device(CUDA) for p in run.model.parameters())
    assert places(watch.copies) == [programs.BATCH_ARRIVES] * 2, [*map(str, watch.copies)]


def test_deep_supervision_stays_on_the_device():
    with fake_device(CUDA, disguised=True) as watch:
        model = programs.network(9, "noncausal")
        model.supervise_deeply()
        run = programs.run_of(model, CUDA)
        run.optimizer.zero_grad = lambda **_: None
        programs.training_step(run)
        assert all(p.grad is not None and p.grad.device == torch.device(CUDA) for p in run.model.parameters())
    assert places(watch.copies) == [programs.BATCH_ARRIVES] * 2, [*map(str, watch.copies)]


def test_an_epoch_waits_at_its_log_interval_only():
    waits = {}
    for num_batches, log_every in ((3, 100), (9, 100), (9, 4)):
        with fake_device(CUDA, may_wait=(programs.LOG_INTERVAL,)) as watch:
            programs.epoch(CUDA, num_batches, log_every)
        waits[num_batches, log_every] = len(watch.waits)
    assert waits == {(3, 100): 2, (9, 100): 2, (9, 4): 3}  # the first, each fourth and the last


@pytest.mark.parametrize(("num_classes", "name"), programs.LOSSES)
def test_a_loss_stays_on_the_device(num_classes, name):
    with fake_device(CUDA) as watch:
        assert programs.loss(CUDA, num_classes, name).device == torch.device(CUDA)
    assert not watch.copies, [*map(str, watch.copies)]


@pytest.mark.parametrize("kind", programs.AUGMENTATIONS)
def test_augmentation_stays_on_the_device(kind):
    with fake_device(CUDA) as watch:
        assert {x.device for x in programs.augmented(CUDA, kind)} == {torch.device(CUDA)}
    assert not watch.copies, [*map(str, watch.copies)]


# --- validation and inference on CUDA ---------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [9, 1])
def test_validation_waits_at_its_end_and_copies_only_its_cases(num_classes):
    waits = []
    for num_images in (2, 8):
        with fake_device(CUDA, may_wait=(programs.END_OF_VALIDATION, programs.PREVIEWS)) as watch:
            run = programs.run_of(programs.one_convolution(num_classes), CUDA, "bf16")
            _, held = programs.validation(run, num_images, num_classes)
        waits.append(places(watch.waits).count(programs.END_OF_VALIDATION))
        kinds = {held.images.shape[1:], held.targets.shape[1:], held.cases.shape[1:]}
        assert [str(e) for e in watch.copies if e.shape[1:] not in kinds] == []
    assert waits == [1, 1]


@pytest.mark.parametrize(("num_classes", "settings"), [(9, {}), (9, {"tta": True}), (1, {"tta_scales": (0.75, 1.5)})])
def test_inference_stays_on_the_device(num_classes, settings):
    with fake_device(CUDA) as watch:
        function = programs.forward(CUDA, num_classes, precision="bf16", **settings)
        logits = function(torch.zeros(2, 1, 50, 70, device=CUDA))
        assert (logits.shape, logits.dtype) == ((2, num_classes, 50, 70), torch.float32)
        assert logits.device == torch.device(CUDA)
    assert not watch.copies


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_a_volume_comes_home_once(protocol):
    for num_slices in (2, 6):
        with fake_device(CUDA, may_wait=(programs.END_OF_VOLUME,)) as watch:
            labels = programs.label_volume(lambda x: x.expand(-1, 9, -1, -1), CUDA, num_slices, protocol)
        assert labels.shape == (num_slices, 80, 72)
        assert len(watch.waits) == 1


@pytest.mark.parametrize("protocol", ["standard", "legacy"])
def test_an_image_comes_home_once(protocol):
    with fake_device(CUDA, may_wait=(programs.EVERY_IMAGE,)) as watch:
        maps = programs.label_images(lambda x: x[:, :1], CUDA, 3, protocol)
    assert len(maps) == 3
    assert len(watch.waits) <= 3
    assert len(watch.copies) == 1, "the batch"


# --- Apple's GPU: everything once, nothing in float64 -----------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_training_on_apple_has_no_float64(form):
    with fake_device(APPLE, disguised=True) as watch:
        run = programs.run_of(programs.network(9, form), APPLE, ema=0.9)
        programs.training_step(run, clip_grad=1.0)
    assert not watch.doubles, [*map(str, watch.doubles)]


@pytest.mark.parametrize("num_classes", [9, 1])
def test_validation_on_apple_has_no_float64(num_classes):
    with fake_device(APPLE, disguised=True, may_wait=(programs.END_OF_VALIDATION, programs.PREVIEWS)) as watch:
        programs.validation(programs.run_of(programs.one_convolution(num_classes), APPLE), 2, num_classes)
    assert not watch.doubles, [*map(str, watch.doubles)]


@pytest.mark.parametrize("kind", programs.AUGMENTATIONS)
def test_augmentation_on_apple_has_no_float64(kind):
    with fake_device(APPLE, disguised=True) as watch:
        programs.augmented(APPLE, kind)
    assert not watch.doubles, [*map(str, watch.doubles)]


@pytest.mark.parametrize(("num_classes", "name"), programs.LOSSES)
def test_losses_on_apple_have_no_float64(num_classes, name):
    with fake_device(APPLE, disguised=True) as watch:
        programs.loss(APPLE, num_classes, name).backward()
    assert not watch.doubles, [*map(str, watch.doubles)]


def test_inference_on_apple_has_no_float64():
    with fake_device(APPLE, disguised=True, may_wait=(programs.END_OF_VOLUME, programs.EVERY_IMAGE)) as watch:
        function = programs.forward(APPLE, 9, tta_scales=(0.75,))
        programs.label_volume(function, APPLE, 2, "standard")
        programs.label_images(function, APPLE, 2, "standard")
    assert not watch.doubles, [*map(str, watch.doubles)]
