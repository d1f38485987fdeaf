"""The command line's contract: every spelling, near misses of names, and mistakes that name the remedy."""

import dataclasses
import json
import sys

import pytest

import train as train_script
from recipes import RECIPES, family_of, resolve_dataset
from utils.command_line import OF_RECIPES, apply, build_parser, parse_flags
from utils.config import ALL, AUTO_BATCH, FIELDS, TEST, TRAIN, Config, describe, from_dict, to_dict
from utils.errors import UserError


def parse(line, verb=TRAIN):
    return parse_flags(line.split(), verb, "")


@pytest.mark.parametrize(
    ("spellings", "value", "field", "expected"),
    [
        (["--max_epochs", "--max_epoch", "--epochs", "--epoch", "--max-epochs"], "7", "epochs", 7),
        (["--batch_size", "--batch", "--batch-size"], "5", "batch_size", 5),
        (["--base_lr", "--lr", "--base-lr"], "0.25", "lr", 0.25),
        (["--root_path", "--volume_path"], "DATA", "root_path", "DATA"),
        (["--img_size"], "224", "img_size", (224, 224)),
        (["--img_size"], "160x224", "img_size", (160, 224)),
        (["--class_names"], "polyp, lesion", "class_names", None),
    ],
)
def test_every_spelling_sets_its_field(spellings, value, field, expected):
    for flag in spellings:
        given = parse_flags([flag, value], TRAIN, "")
        assert given == {field: ("polyp", "lesion") if expected is None else expected}


def test_checkpoint_and_model_are_one_field_and_take_several():
    assert parse("--model a.pth", TEST) == {"checkpoint": ("a.pth",)}
    assert parse("--checkpoint a,1.pth b.pth", TEST) == {"checkpoint": ("a,1.pth", "b.pth")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--debug", True),
        ("--debug True", True),
        ("--debug true", True),
        ("--debug False", False),
        ("--debug 0", False),
        ("--no-debug", False),
        ("--no_debug", False),
        ("--debug --no-debug", False),
    ],
)
def test_booleans_do_what_they_say(line, expected):
    assert parse(line, TEST) == {"debug": expected}


def test_automatic_batch_is_for_training():
    assert parse("--batch_size auto") == {"batch_size": AUTO_BATCH}
    with pytest.raises(UserError, match=r"--batch_size auto: only train\.py"):
        parse("--batch_size auto", TEST)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"graphs": True}, "--graphs: .* give --compile"),
        ({"graphs": True, "compile": True, "accumulate": 2}, "--graphs: .*--accumulate 2"),
        ({"strong_augment": True, "augment": False}, "--no-augment and --strong_augment: .*give one"),
    ],
)
def test_flags_that_exclude_each_other(fields, message):
    with pytest.raises(UserError, match=message):
        apply(Config(), fields)
    assert apply(Config(), {"graphs": True, "compile": True}).graphs


def test_scales_are_numbers_within_bounds():
    assert parse("--tta_scales 0.75,1.25", TEST) == {"tta_scales": (0.75, 1.25)}
    assert parse("--tta_scales 0.5 2", TEST) == {"tta_scales": (0.5, 2.0)}
    for wrong in ("0.75,big", "0", "-1", "20"):
        with pytest.raises(UserError, match=r"--tta_scales .*: expected"):
            parse(f"--tta_scales {wrong}", TEST)


def test_a_bare_boolean_does_not_swallow_the_next_flag():
    assert parse("--is_savenii --volume_path DATA", TEST) == {"is_savenii": True, "root_path": "DATA"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--epohcs 3", "unknown flag --epohcs; did you mean --epochs"),
        ("--img_sise=3", "unknown flag --img_sise; did you mean --img_size"),
        ("--epochs three", "--epochs three: expected a whole number"),
        ("--epochs 0", "--epochs 0: expected at least 1"),
        ("--lr -1", "--lr -1: expected at least 0"),
        ("--batch 0", "--batch_size 0: expected a whole number from 1, or auto"),
        ("--batch_size 2.5", "--batch_size 2.5: expected a whole number from 1, or auto"),
        ("--lr nan", "--lr nan: expected a number"),
        ("--lr", "--lr.*expected one argument"),
        ("--drop_path 1", "--drop_path 1: expected at least 0 and below 1"),
        ("--ssd sideways", "--ssd sideways: expected one of causal, noncausal, bidirectional"),
        ("--img_size 0", "--img_size 0: expected a size in pixels"),
        ("--img_size 3x4x5", "expected a size in pixels"),
        ("--augment maybe", "--augment maybe: expected True or False"),
        ("--protocol legacy", "unknown flag --protocol"),
        ("stray", "unexpected word stray"),
    ],
)
def test_mistakes_name_field_value_and_remedy(line, message):
    with pytest.raises(UserError, match=message):
        parse(line)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("Synapse", "synapse"),
        ("SYNAPSE", "synapse"),
        ("Syanpse", "synapse"),
        ("isic2018", "isic2018"),
        ("ISIC-2018", "isic2018"),
        ("cvc-clinicdb", "cvc_clinicdb"),
        ("Rectal", "rectal"),
    ],
)
def test_names_of_recipes_in_any_case_and_near_misses(name, recipe):
    assert resolve_dataset({"dataset": name}, guess=False) == {"dataset": recipe, "recipe": recipe}


@pytest.mark.parametrize("name", ["cityscapes", "syn", "", "./nowhere", "isic2016"])
def test_a_name_too_far_away_lists_all_recipes(name):
    with pytest.raises(UserError, match=r"neither a folder.*synapse, phantom, isic2018, cvc_clinicdb, rectal"):
        resolve_dataset({"dataset": name}, guess=True)


def test_a_recipe_of_another_version_in_a_checkpoint_is_named():
    with pytest.raises(UserError, match=r"recipe abdomen: .*expected one of synapse, .*give --recipe"):
        family_of(Config(recipe="abdomen"))


def test_a_folder_has_the_recipe_of_its_layout_unless_one_is_given(tmp_path):
    def recipe_of(folder, guess=True, **given):
        found = resolve_dataset({"dataset": str(folder), **given}, guess)
        assert (found["dataset"], found["root_path"]) == (str(folder), str(folder))
        return found.get("recipe")

    (tmp_path / "images").mkdir()
    volumes = tmp_path / "volumes"
    (volumes / "train_npz").mkdir(parents=True)
    assert recipe_of(tmp_path) == "isic2018"
    assert recipe_of(tmp_path, recipe="rectal") == "rectal"
    assert recipe_of(tmp_path / "images") == "isic2018"
    assert recipe_of(volumes) == "synapse"
    manifest = {"format": 1, "dataset": "cvc", "sha256": "", "parameters": {}, "lists": {}, "cases": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert recipe_of(tmp_path) == "cvc_clinicdb"
    assert recipe_of(tmp_path, recipe="rectal") == "rectal"
    assert recipe_of(tmp_path, guess=False) is None
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"dataset": "folder"}), encoding="utf-8")
    assert recipe_of(tmp_path) == "isic2018"
    assert recipe_of(volumes, guess=False) is None  # the checkpoint's own
    with pytest.raises(UserError, match="--recipe nothing: no such recipe"):
        recipe_of(tmp_path, recipe="nothing")


def test_a_folder_that_only_shares_a_name_does_not_hide_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "synapse").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_dataset({"dataset": "synapse"}, guess=False) == {"dataset": "synapse", "recipe": "synapse"}


@pytest.mark.parametrize("given", [{}, {"root_path": "elsewhere"}])
def test_a_word_that_names_both_a_recipe_and_a_folder_of_data_means_both(tmp_path, monkeypatch, given):
    (tmp_path / "Synapse" / "test_vol_h5").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = resolve_dataset({"dataset": "Synapse", **given}, guess=False)
    assert found == {"dataset": "Synapse", "recipe": "synapse", "root_path": given.get("root_path", "Synapse")}


def test_the_readme_commands_parse_to_what_they_say(tmp_path):
    line = (
        "--dataset Syanpse --root_path DATA --max_epochs 300 --output_dir OUT --img_size 224 --base_lr 0.001 "
        "--batch_size 24"
    )
    assert train_script.configure(line.split()) == dataclasses.replace(
        RECIPES["synapse"], root_path="DATA", output_dir="OUT"
    )
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    line = f"--dataset {tmp_path} --csvfile CSV --loss dice --batch 42 --lr 0.0005 --epoch 200"
    assert train_script.configure(line.split()) == dataclasses.replace(
        RECIPES["isic2018"], dataset=str(tmp_path), root_path=str(tmp_path), csvfile="CSV"
    )
    line = (
        "--dataset Synapse --is_savenii --volume_path DATA --output_dir OUT --max_epoch 300 --base_lr 0.001 "
        "--img_size 224 --batch_size 24"
    )
    given = resolve_dataset(parse_flags(line.split(), TEST, ""), guess=False)
    assert given["recipe"] == "synapse"
    assert given["is_savenii"] is True
    assert given["root_path"] == "DATA"
    line = f"--dataset {tmp_path} --csvfile CSV --model m.pth --debug True"
    given = resolve_dataset(parse_flags(line.split(), TEST, ""), guess=False)
    assert "recipe" not in given  # the checkpoint knows
    assert given["debug"] is True
    assert given["checkpoint"] == ("m.pth",)


def test_recipes_are_the_published_ones():
    synapse, isic, cvc, rectal = (RECIPES[n] for n in ("synapse", "isic2018", "cvc_clinicdb", "rectal"))
    assert (synapse.img_size, synapse.batch_size, synapse.epochs, synapse.lr) == ((224, 224), 24, 300, 1e-3)
    assert (synapse.schedule, synapse.restart_iterations, synapse.min_lr) == ("warm_restarts", 50, 1e-6)
    assert (synapse.loss, synapse.optimizer, synapse.weight_decay, synapse.num_classes) == ("ce_dice", "adamw", 1e-2, 9)
    assert (isic.optimizer, isic.lr, isic.batch_size, isic.folds, isic.epochs) == ("adam", 5e-4, 42, 5, 200)
    assert (cvc.optimizer, cvc.lr, cvc.batch_size, cvc.folds, cvc.epochs) == ("adamw", 6e-4, 44, 9, 200)
    assert (rectal.img_size, rectal.epochs, rectal.schedule_epochs, rectal.folds) == ((224, 224), 180, 200, 9)
    assert {r.seed for r in (synapse, isic, cvc, rectal)} == {1234}
    assert {r.ssd for r in RECIPES.values()} == {"causal"}


@pytest.mark.parametrize("verb", ALL)
def test_help_lists_every_flag_of_the_script_with_a_text(verb):
    text = build_parser(verb, "").format_help()
    for name, field in FIELDS.items():
        assert (f"--{name} " in text or f"--{name}," in text) == (verb in field.metadata["verbs"]), name
        assert field.metadata["text"]


def test_a_config_survives_its_json_form_and_unknown_fields_are_refused():
    cfg = Config(img_size=(160, 224), checkpoint=("a", "b"), class_names=("x",))
    assert from_dict(to_dict(cfg), "here") == cfg
    with pytest.raises(UserError, match=r"here: its config has unknown fields colour"):
        from_dict(to_dict(cfg) | {"colour": 1}, "here")
    assert "160x224" in describe(cfg, TRAIN)


no_name = pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse takes -- as a folder's name there")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", str(2**63)], r"--seed 9\d+: expected at least 0 and below 4294967296"),
        (["--batch", "1" + "0" * 30], "--batch_size 10+: expected a whole number from 1"),
        (["--batch", "3000000000"], "--batch_size 3000000000: expected at least 0 and below 2147483648"),
        (["--batch", "²"], "--batch_size ²: expected a whole number from 1"),
        (["--epochs", "9" * 5000], "--epochs 9+: expected"),
        (["--img_size", "9" * 5000], "--img_size 9+: expected at least 1 and below 32768"),
        (["--lr", "inf"], "--lr inf: expected a finite number"),
        (["--clip_grad", "1e400"], "--clip_grad 1e400: expected a finite number"),
        (["--output_dir", ""], "--output_dir : expected a name, not an empty text"),
        (["--output_dir", "out/" + "x" * 256], r"--output_dir out/x+: expected names of at most 255 bytes"),
        (["--root_path", "ü" * 128], r"--root_path ü+: expected names of at most 255 bytes"),
        (["--list_dir", "a/" * 3000], r"--list_dir (a/)+: expected a text of at most 4095 bytes"),
        (["--output_dir", "a\x1b[2J"], "--output_dir .*: expected a text without control characters"),
        pytest.param(["--dataset=--"], "--dataset: expected one value", marks=no_name),
        (["--class_names", "a,b,a"], "--class_names a,b,a: a stands there twice"),
    ],
)
def test_values_that_nothing_can_be_done_with(words, message):
    with pytest.raises(UserError, match=message):
        apply(Config(), parse_flags(words, TRAIN, ""))


def test_a_tolerance_is_finite():
    with pytest.raises(UserError, match="--tolerance inf: expected a finite number"):
        parse("--tolerance inf", TEST)


def test_help_shows_what_holds_without_a_flag():
    """Nothing that a recipe sets is said to have one default."""
    text = " ".join(build_parser(TRAIN, "").format_help().split())
    assert "seed of python, NumPy and PyTorch; default: 1234" in text
    assert "learning rate; default: the recipe's" in text
    for name in FIELDS:
        differ = any(getattr(recipe, name) != getattr(Config(), name) for recipe in RECIPES.values())
        assert not differ or name in (*OF_RECIPES, "preprocess"), name
    text = " ".join(build_parser(TEST, "").format_help().split())
    assert "input size: 224 or 160x224 (height x width); default: the checkpoint's" in text
    assert "evaluation rules (standard, legacy); default: standard" in text


@pytest.mark.parametrize("word", ["--learning_rate", "--learning-rate", "--learning_rate=0.1"])
def test_words_of_other_programs_are_understood(word):
    with pytest.raises(UserError, match=r"unknown flag --learning.rate; did you mean --lr\?"):
        parse(word)
