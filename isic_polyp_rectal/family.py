"""The family of pictures: images/ and masks/ with a CSV split and folds."""

from datasets.images.pairs import is_data
from isic_polyp_rectal.cross_validation import train_folds
from isic_polyp_rectal.evaluation import evaluate
from isic_polyp_rectal.task import RECIPES, build_task, class_names, settle
from utils.family import Family

PICTURES = Family(RECIPES, "isic2018", is_data, build_task, class_names, evaluate, settle, train_folds)
