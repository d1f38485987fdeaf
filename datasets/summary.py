"""What a check of a data set found: the lines a run prints before it trains or tests."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataSummary:
    """Counts of a data set whose every file has been read.

    num_cases: volumes, patients or pictures; num_images: two-dimensional images in them.
    sizes: (height, width) -> number of images; classes: label value -> number of images that
    show it, background (0) included; notes: what is unusual but no mistake, one line each.
    """

    num_cases: int
    num_images: int
    sizes: dict[tuple[int, int], int]
    classes: dict[int, int]
    notes: tuple[str, ...] = field(default=())

    @property
    def most_common_size(self) -> tuple[int, int]:
        """(height, width) of most of the images; of equals the smallest."""
        return min(self.sizes, key=lambda size: (-self.sizes[size], size))

    def __str__(self) -> str:
        """One line of counts, sizes and classes, then one line a note."""
        cases = "" if self.num_cases == self.num_images else f"{self.num_cases} cases, "
        most_common = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        sizes = ", ".join(f"{height}x{width}" for (height, width), _ in most_common[:3])
        if len(most_common) > 3:
            sizes += f" and {len(most_common) - 3} other sizes"
        classes = ", ".join(f"{value} in {count}" for value, count in sorted(self.classes.items()))
        first = f"{cases}{self.num_images} images of {sizes or 'no size'}; classes seen: {classes or 'none'}"
        return "\n".join([first, *(f"  note: {note}" for note in self.notes)])
