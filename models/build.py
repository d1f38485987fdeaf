"""Build a network to train, or load one from a checkpoint.

A checkpoint is either ours, which holds its config, or the released weights, which need the config of a recipe.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.baselines import NAMES, build_baseline, is_baseline
from models.hetero_medseg import ARCHITECTURE, HeteroMedSeg, build_model
from models.ssd import backend_name
from models.weights.onnx import OnnxNetwork
from models.weights.pretrained import initialise
from models.weights.released import is_released, load_released, released_num_classes
from utils import checkpoint
from utils.checkpoint_content import compare
from utils.config import FIELDS, Config
from utils.errors import UserError
from utils.inherited import passed_on
from utils.training.resume import read_config

# --network -> what builds it: images (B, 1 or 3, H, W) in, logits (B, num_classes, H, W) out
NETWORKS: dict[str, Callable[[Config], nn.Module]] = {
    "heteromedseg": lambda cfg: build_model(**{name: getattr(cfg, name) for name in ARCHITECTURE})
}


def make_network(cfg: Config) -> nn.Module:
    """A freshly initialised network of the kind cfg.network: of `NETWORKS`, or of another package.

    raises: UserError for an unknown name or a package that is not installed
    """
    if cfg.network in NETWORKS:
        return NETWORKS[cfg.network](cfg)
    if is_baseline(cfg.network):
        return build_baseline(cfg)
    raise UserError(f"--network {cfg.network}: no such network; expected one of {', '.join((*NETWORKS, *NAMES))}")


def check_flags(cfg: Config, given: Mapping[str, Any]) -> None:
    """Refuse flags that the network does not have. in: flag -> value, of those that were given

    raises: UserError
    """
    for name in sorted(lacking(cfg) & given.keys()):
        if str(given[name]) not in ("False", "auto", "none", "no") and given[name] != FIELDS[name].default:
            raise UserError(f"--{name} {given[name]}: only for --network heteromedseg; leave it out")
    if is_ours(cfg) and given.get("pretrained") == "imagenet":
        raise UserError("--pretrained imagenet: only for networks of segmentation_models_pytorch; give a file")


def lacking(cfg: Config) -> set[str]:
    """The settings of HeteroMedSeg that cfg.network does not have."""
    if is_ours(cfg):
        return set()
    alone = {"variant", "deep_supervision", "pretrained_vssd", "pretrained_form"}
    if is_baseline(cfg.network):
        alone |= {*ARCHITECTURE, "recompute"} - {"num_classes"}
    return alone


def build_network(cfg: Config, device: torch.device) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a network to train, with the weights that `cfg` asks for; also return lines for the log.

    Under --resume the weights stay those of a new network, because the run replaces all of them.
    raises: UserError when weights that were asked for are missing or do not fit
    """
    weights = None if is_ours(cfg) or cfg.resume or cfg.init or cfg.pretrained in ("auto", "none") else cfg.pretrained
    model = build_baseline(cfg, weights) if weights else make_network(cfg)
    ours = isinstance(model, HeteroMedSeg)
    note = f"network {cfg.network}: {sum(p.numel() for p in model.parameters()):,} parameters"
    notes = (note + (f", SSD {backend_name(cfg.ssd, device)}" if ours else ""),)
    if ours:
        model.recompute = cfg.recompute == "yes"
    if not cfg.resume:
        if cfg.init:
            notes += (take_weights(model, cfg),)
        elif ours:
            notes += _pretrained(model, cfg)
        else:
            notes += (f"initialised with {weights} weights in the encoder" if weights else "initialised from scratch",)
    if cfg.deep_supervision:
        model.supervise_deeply()
    return model, notes


def take_weights(model: nn.Module, cfg: Config) -> str:
    """Copy the weights of the checkpoint cfg.init into `model`; the line for the log.

    Where the number of classes differs, what has one value a class stays as it was initialised.
    raises: UserError for weights of another network
    """
    path = checkpoint.find(cfg.init)
    loaded = load_network(path, {"": cfg}, "")
    if loaded.cfg.variant != cfg.variant:
        raise UserError(f"--init {path}: of --variant {loaded.cfg.variant}; expected one of --variant {cfg.variant}")
    own, given = model.state_dict(), loaded.model.state_dict()
    new = []
    if loaded.cfg.num_classes != cfg.num_classes:
        ends = (cfg.num_classes, loaded.cfg.num_classes)
        new = [n for n in own.keys() & given.keys() if own[n].ndim and (len(own[n]), len(given[n])) == ends]
    shapes = {name: tuple(value.shape) for name, value in own.items() if name not in new}
    if problems := compare({name: value for name, value in given.items() if name not in new}, shapes):
        raise UserError(f"--init {path}: not the weights of --network {cfg.network}:\n{problems}")
    model.load_state_dict({name: own[name] if name in new else given[name] for name in own})
    head = f"; {', '.join(sorted(new))} start anew: {loaded.cfg.num_classes} classes there, {cfg.num_classes} here"
    unlike = "" if loaded.cfg.preprocess == cfg.preprocess else "; warning: its images were prepared in another way"
    return f"initialised from {path} ({len(own) - len(new)} tensors){head if new else ''}{unlike}"


def cases_before(cfg: Config) -> dict[str, list[str]]:
    """{"earlier": hashes of the cases that the checkpoint cfg.init was trained on}; empty without one."""
    if not cfg.init or cfg.resume:
        return {}
    cases = checkpoint.read(checkpoint.find(cfg.init)).get("cases", {})  # checked when the weights were taken
    return {"earlier": sorted({*cases.get("train", ()), *cases.get("earlier", ())})}


def _pretrained(model: HeteroMedSeg, cfg: Config) -> tuple[str, ...]:
    """Copy ImageNet weights into `model` as --pretrained and --pretrained_vssd say; lines for the log."""
    biformer, vssd = _weights_file(cfg.pretrained, "biformer"), _weights_file(cfg.pretrained_vssd, "vssd")
    if biformer or vssd:
        states = [checkpoint.read(path) if path else None for path in (biformer, vssd)]
        return tuple(map(str, initialise(model, *states, cfg.pretrained_form, str(biformer), str(vssd))))
    missing = "no BiFormer-Base weights in pretrained_ckpt/ (its README says where from)"
    return (f"initialised from scratch: {missing if cfg.pretrained == 'auto' else '--pretrained none'}",)


def is_ours(cfg: Config) -> bool:
    """Whether cfg.network is HeteroMedSeg, in any of its sizes and ablations."""
    return cfg.network == "heteromedseg"


def count_flops(model: nn.Module, cfg: Config, device: torch.device) -> int:
    """Move `model` to the device and count the operations of one image's forward pass.

    A multiplication and an addition are two. The scan of mamba_ssm's kernel is not counted.
    raises: UserError for another package's network that does not take images of cfg.img_size
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    image = torch.zeros(1, cfg.preprocess.channels, *cfg.img_size, device=device)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.to(device).eval()(image)
    except (torch.OutOfMemoryError, NotImplementedError):  # kinds of RuntimeError that are of the machine
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        if not is_baseline(cfg.network):
            raise
        size = "x".join(map(str, cfg.img_size))
        found = f"--network {cfg.network}: does not take images of {size} ({checkpoint.first_line(error)})"
        raise UserError(f"{found}; try another --img_size") from error
    return counter.get_total_flops()


def name_weights(cfg: Config) -> Config:
    """`cfg` with the path of each weights file, or `none`, in place of `auto`, as checkpoints record it."""
    if cfg.resume:
        return cfg
    if not is_ours(cfg) or cfg.init:
        weights = "none" if cfg.init or cfg.pretrained == "auto" else cfg.pretrained
        return dataclasses.replace(cfg, pretrained=weights, pretrained_vssd="none")
    biformer, vssd = _weights_file(cfg.pretrained, "biformer"), _weights_file(cfg.pretrained_vssd, "vssd")
    return dataclasses.replace(cfg, pretrained=str(biformer or "none"), pretrained_vssd=str(vssd or "none"))


def _weights_file(wanted: str, kind: str) -> Path | None:
    """The file that `--pretrained wanted` means: for `auto` the one in the usual folders, if there is one."""
    return None if wanted == "none" else checkpoint.locate(kind) if wanted == "auto" else checkpoint.find(wanted)


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode, with what its checkpoint may decide of a test or a prediction.

    cfg: the network, its input, its data; all else has its default (see `passed_on`)
    trained: all settings of the training; None for released weights, which hold none
    cases: part of the training data -> hashes of its cases (`hash_case`); empty where the file holds none
    origin: file, sha256, epoch, selection, split, seed and more, for the result files; notes: lines for the log
    """

    model: nn.Module
    cfg: Config
    class_names: tuple[str, ...] | None
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()
    trained: Config | None = None
    cases: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)


def form_notes(loaded: Loaded, device: torch.device) -> list[str]:
    """A line for the log that says which code computes SSD; none for a network without it, or in an ONNX file."""
    return [f"SSD {backend_name(loaded.cfg.ssd, device)}"] if isinstance(loaded.model, HeteroMedSeg) else []


def load_network(path: Path, recipes: Mapping[str, Config], recipe: str | None = None) -> Loaded:
    """Load the network in the file `path`.

    recipe: which of `recipes` goes with released weights, which hold no settings
    raises: UserError for a file that is no checkpoint of this network, and for released weights without a recipe
    """
    if path.suffix == ".onnx":
        model = OnnxNetwork(path)
        return _ours(model.settings | {"model": {}}, path, model)
    state = checkpoint.read(path)
    if state.get("format") == "heteromedseg":
        return _ours(state, path)
    if not is_released(state):
        raise UserError(
            f"{path}: not a HeteroMedSeg checkpoint: neither written by train.py nor the released state dict; "
            "expected best_model.pth, epoch_last.pth or a file named in pretrained_ckpt/README.md"
        )
    if recipe is None:
        named = "--recipe synapse, in Python recipes=recipes.RECIPES, recipe='synapse'"
        raise UserError(f"{path}: released weights hold no settings; name their recipe, e.g. {named}")
    num_classes = released_num_classes(state, str(path))
    cfg = passed_on(dataclasses.replace(recipes[recipe], num_classes=num_classes, ssd="causal", variant="published"))
    model = build_model(num_classes, cfg.ssd, drop_path=0.0)
    note = str(load_released(model, state, str(path)))
    origin = {"file": str(path), "sha256": checkpoint.sha256(path)}
    origin |= {"epoch": None, "selection": "as published", "split": "as published", "seed": None}
    return Loaded(model.eval(), cfg, None, origin, (note,))


def _ours(state: dict[str, Any], path: Path, network: OnnxNetwork | None = None) -> Loaded:
    """What a file of ours holds; `network` has its weights inside, else they are in `state`."""
    trained = read_config(state, str(path))
    model = network or make_network(trained)
    if network is None:
        model.load_state_dict(own_weights(state, model, str(path)))
    origin = {"file": str(path), "sha256": checkpoint.sha256(path)}
    origin |= {key: state.get(key) for key in ("epoch", "selection", "split", "split_sha256")}
    origin |= {
        name: getattr(trained, name) for name in ("seed", "init", "pretrained", "pretrained_vssd", "network", "ssd")
    }
    cfg, notes = passed_on(trained), ()
    if network:
        cfg, notes = dataclasses.replace(cfg, precision="fp32"), ("network run by ONNX Runtime, float32 on the CPU",)
    cases = state.get("cases", {})
    return Loaded(model.eval(), cfg, tuple(state["class_names"]), origin, notes, trained, cases)


def own_weights(state: dict[str, Any], model: nn.Module, source: str) -> dict[str, Tensor]:
    """The weights to use of a file of ours: the moving average where it holds one; no heads of deep supervision.

    raises: UserError where names, shapes, types or values are not those of `model`
    """
    weights = state["model"]
    if averaged := state.get("ema"):  # the state of an `AveragedModel`
        weights = {name.removeprefix("module."): value for name, value in averaged.items() if name != "n_averaged"}
    weights = {name: value for name, value in weights.items() if not name.startswith("deep_heads.")}
    if problems := compare(weights, {name: tuple(value.shape) for name, value in model.state_dict().items()}):
        raise UserError(
            f"{source}: its tensors are not those of this version's network:\n{problems}\n  "
            "Evaluate it with the version that wrote it"
        )
    return weights
