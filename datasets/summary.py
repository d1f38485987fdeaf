"""Reading every file of a data set: one error for all problems, or the lines that a run prints of what was found."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from utils.distributed import is_main
from utils.errors import UserError, counted, join_listed


def try_each(function: Callable, items: Sequence, num_threads: int, word: str, complaint: str) -> list[Any]:
    """The results of `function` for each item, from several threads, with a progress bar named `word`.

    raises: one UserError with the problems of all items; `complaint` says what they are, such as "files are damaged"
    """

    def attempt(item: Any) -> Any:
        try:
            return function(item)
        except UserError as error:
            return error

    with ThreadPoolExecutor(num_threads) as pool:
        found = list(tqdm(pool.map(attempt, items), word, len(items), leave=False, disable=None if is_main() else True))
    if problems := [str(result) for result in found if isinstance(result, UserError)]:
        raise UserError(f"{len(problems)} of {len(items)} {complaint}\n  {join_listed(problems)}")
    return found


@dataclass(frozen=True)
class DataSummary:
    """Counts of a data set.

    num_cases: volumes, patients or pictures; num_images: two-dimensional images in them.
    sizes: (height, width) -> number of images; classes: label value -> number of images that
    show it, background (0) included; notes: what is unusual but no mistake, one line each
    """

    num_cases: int
    num_images: int
    sizes: dict[tuple[int, int], int]
    classes: dict[int, int]
    notes: tuple[str, ...] = ()

    @property
    def most_common_size(self) -> tuple[int, int]:
        """(height, width) of most of the images; of equals the smallest."""
        return min(self.sizes, key=lambda size: (-self.sizes[size], size))

    def __str__(self) -> str:
        """One line of counts, sizes and classes, then one line a note."""
        cases = "" if self.num_cases == self.num_images else f"{counted(self.num_cases, 'case')}, "
        most_common = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        sizes = ", ".join(f"{height}x{width}" for (height, width), _ in most_common[:3])
        if len(most_common) > 3:
            sizes += f" and {counted(len(most_common) - 3, 'other size')}"
        classes = ", ".join(f"{value} in {count}" for value, count in sorted(self.classes.items()))
        first = f"{cases}{counted(self.num_images, 'image')} of {sizes or 'no size'}; classes seen: {classes or 'none'}"
        return "\n".join([first, *(f"  note: {note}" for note in self.notes)])
