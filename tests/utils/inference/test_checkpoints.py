"""Settings of test.py: the checkpoint's, but for those that only training uses."""

from utils.config import Config
from utils.inference.checkpoints import settle


def test_the_precision_of_training_is_not_that_of_testing():
    trained = Config(precision="bf16")
    assert settle(trained, {}).precision == "auto"
    assert settle(trained, {"precision": "fp16"}).precision == "fp16"
