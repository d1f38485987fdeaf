"""The family of volumes: slices to train on, whole volumes to evaluate."""

from datasets.volumes.lists import is_data
from synapse_train_test.evaluation import evaluate
from synapse_train_test.task import RECIPES, build_task, class_names, settle
from utils.family import Family

VOLUMES = Family(RECIPES, "synapse", is_data, build_task, class_names, evaluate, settle)
