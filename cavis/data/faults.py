"""What is wrong with a data set: found one by one, reported all together."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it should be."""

    file: Path
    """The file it is in, or that is missing."""
    message: str
    """What was expected and what came, in one sentence."""
    item: str = ""
    """The video or image, such as ``video 5``; empty where the fault concerns the whole file."""
    annotation: int | str | None = None
    """The id of the annotation; None where the fault concerns no single one."""
    harmless: bool = False
    """Whether the record can be used all the same (a wrong area, a mask of no pixels)."""

    def __str__(self) -> str:
        annotation = "" if self.annotation is None else f"annotation {self.annotation}"
        where = ", ".join(part for part in (self.item, annotation) if part)
        return f"{self.file}: {where}: {self.message}" if where else f"{self.file}: {self.message}"


class DataError(ValueError):
    """A data set was refused; the message names file, video and annotation."""

    def __init__(self, message: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


@dataclass
class Faults:
    """A list of faults in one annotation file, filled while it is read."""

    file: Path
    thorough: bool = False
    """Whether to look also for what does no harm, and at the files of the frames."""
    found: list[Fault] = field(default_factory=list)

    def add(self, message: str, item: str = "", annotation: int | str | None = None, *, harmless: bool = False) -> None:
        """Note a fault and go on."""
        self.found.append(Fault(self.file, message, item, annotation, harmless))

    @property
    def harmful(self) -> tuple[Fault, ...]:
        """Those that make a record unusable."""
        return tuple(fault for fault in self.found if not fault.harmless)

    def settle(self, usable: int, *, skip_faulty: bool) -> tuple[Fault, ...]:
        """End the opening of a data set that has ``usable`` videos or images, and return the faults left out.

        A DataError that names the first fault and how many more there are, unless ``skip_faulty``; and one in any case
        if nothing usable is left.
        """
        harmful = self.harmful
        if harmful and not (skip_faulty and usable):
            more = len(harmful) - 1
            tail = f" (and {more} more fault{'s' if more > 1 else ''})" if more else ""
            raise DataError(f"{harmful[0]}{tail}", harmful)
        return harmful
