"""Settings of test.py: the checkpoint's, but for those that only training uses."""

from utils.config import Config
from utils.inference.checkpoints import settle
from utils.inherited import passed_on


def test_the_precision_of_training_is_not_that_of_testing():
    trained = Config(precision="bf16")
    assert settle(passed_on(trained), {}).precision == "auto"
    assert settle(passed_on(trained), {"precision": "fp16"}).precision == "fp16"
