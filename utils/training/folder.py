"""The folder of a training run: whether a run may write there, one run at a time, and what an ended one left behind."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from utils.config import Config
from utils.distributed import is_main
from utils.errors import UserError
from utils.files import check_writable
from utils.log import log

LAST, BEST = "epoch_last.pth", "best_model.pth"
WAIT = 6.0  # seconds for a lock; loader processes of a training that was killed hold it until they notice
LOCK = ".lock"  # held while a training writes into the folder; it stays there, and only holding it means anything


def claim_folder(cfg: Config) -> Path:
    """cfg.output_dir, if a run may be written there; nothing is created or removed yet.

    raises: UserError when it holds a run and neither --resume nor --force is given, holds none to resume, or cannot
        be made
    """
    out = Path(cfg.output_dir)
    check_writable(out)
    held = [name for name in (LAST, BEST) if (out / name).exists()]
    if held == [BEST] and not cfg.force:
        raise UserError(
            f"--output_dir {out}: already holds a run ({BEST}), but no {LAST} to go on from, as one leaves it that was "
            "killed within its first epoch; give --force to start again, or another --output_dir"
        )
    if cfg.resume and LAST not in held:
        raise UserError(f"--resume: {out / LAST} does not exist; leave --resume out to start a run there")
    if held and not cfg.resume and not cfg.force:
        raise UserError(
            f"--output_dir {out}: already holds a run ({', '.join(held)}); give --resume to go on with it, "
            "--force to replace it, or another --output_dir"
        )
    return out


@contextlib.contextmanager
def hold_folder(cfg: Config) -> Iterator[Path]:
    """Create the run's folder and keep other trainings out of it while the context lasts; rank 0 only.

    Under --force the files of the run before are removed, and always what a killed run left half-written. The system
    gives the lock back when a process ends, however it ends.
    raises: UserError when another training is there, and as `claim_folder`
    """
    out = Path(cfg.output_dir)
    if not is_main():
        yield out
        return
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK)
        lock.acquire(timeout=WAIT)
    except Timeout:
        raise UserError(
            f"--output_dir {out}: another training is writing there; wait for it or stop it, or give another folder"
        ) from None
    except NotImplementedError:  # some network file systems
        log(f"warning: the file system of {out} has no locks; let no other training write there")
    except OSError as error:
        raise UserError(f"--output_dir {out}: cannot be written to ({error.strerror}); give another folder") from None
    try:
        claim_folder(cfg)  # once more: another training may have ended since
        for part in out.glob(".part-*"):
            shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink(missing_ok=True)
        if cfg.force and not cfg.resume:
            for name in (LAST, BEST, "history.csv", "log.txt"):
                (out / name).unlink(missing_ok=True)
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
        yield out
    finally:
        lock.release()
