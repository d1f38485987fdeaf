"""Which cases an evaluation of volumes takes."""

import dataclasses

from synapse_train_test.evaluation import open_split
from synapse_train_test.task import SYNAPSE, build_task
from tests.support.trees import write_synapse_tree


def test_training_and_held_out_cases_are_apart_as_in_training(tmp_path):
    tree = write_synapse_tree(tmp_path / "tree", num_cases=5)
    cfg = dataclasses.replace(
        SYNAPSE, root_path=str(tree), list_dir=str(tree / "lists"), val_cases=2, img_size=(32, 32), cache="no"
    )
    train, train_words, _ = open_split(dataclasses.replace(cfg, split="train"))
    held_out, held_out_words, _ = open_split(dataclasses.replace(cfg, split="val"))
    assert (len(train), len(held_out)) == (3, 2)
    assert set(train.names) | set(held_out.names) == {f"case{k:04d}" for k in range(1, 6)}
    trained_on = {name.partition("_slice")[0] for name in build_task(cfg).train_set.names}
    assert set(train.names) == trained_on
    assert "without its 2 held-out cases" in train_words
    assert "only the 2 held-out cases" in held_out_words
    everything, words, _ = open_split(dataclasses.replace(cfg, split="train", val_cases=0))
    assert (len(everything), words) == (5, "lists/train.txt")
