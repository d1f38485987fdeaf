"""What a run leaves to look at while it trains: a line an epoch, history.csv, TensorBoard."""

from pathlib import Path
from typing import Any

from utils.distributed import is_main
from utils.files import csv_text, write_atomically
from utils.log import log
from utils.training.validation import Validation


class History:
    """Records of the epochs so far; `records` is the list kept inside the checkpoint, extended in place.

    Rank 0 writes the log line, history.csv (replaced in one step), TensorBoard's scalars and its overlay images.
    """

    def __init__(self, folder: Path, records: list[dict[str, Any]]) -> None:
        self.path = folder / "history.csv"
        self.records = records
        self.writer = None
        if is_main():
            from torch.utils.tensorboard import SummaryWriter

            step = records[-1]["epoch"] + 1 if records else None
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def add(self, record: dict[str, Any], validation: Validation | None) -> None:
        """Note one epoch: {"epoch", "iteration", "loss", "lr", "images_per_s"} and its validation, if any."""
        if validation is not None:
            record = record | {"mean_dice": validation.mean_dice}
            record |= {f"dice {name}": value for name, value in validation.dice.items()}
        self.records.append(record)
        score = f"  mean Dice {validation.mean_dice:.4f}" if validation else ""
        log(
            f"epoch {record['epoch']:>4}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
            f"{record['images_per_s']:.1f} images/s{score}"
        )
        if self.writer is not None:
            write_atomically(self.path, csv_text(self.records))
            for name in ("loss", "lr", "images_per_s"):
                self.writer.add_scalar(f"train/{name}", record[name], record["epoch"])
            if validation is not None:
                self.writer.add_scalar("validation/mean_dice", validation.mean_dice, record["epoch"])
                for name, value in validation.dice.items():
                    self.writer.add_scalar(f"validation/dice/{name}", value, record["epoch"])
                for index, picture in enumerate(validation.previews):
                    self.writer.add_image(f"overlay/{index}", picture, record["epoch"], dataformats="HWC")
            self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
