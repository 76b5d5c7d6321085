"""What was found when our model was compiled and compared with itself, run one operation at a time."""

from dataclasses import asdict, dataclass

from flaxformer_edu.compare.causes.trial import Diagnosis
from flaxformer_edu.compare.rows import Row


@dataclass(frozen=True, kw_only=True)
class CompiledReport:
    """Rows of compiled (as ours) against eager (as theirs).

    programs: of what was compiled by itself: the output (""), the losses, the parameters' gradients.
    places: where one of these differs, of all layers' outputs, or of all gradients, from one more program.
    refused: why the model cannot be compiled; None where it can.
    diagnosis: the switch of XLA that makes the difference vanish; tried: how many were.
    """

    programs: tuple[Row, ...] = ()
    places: tuple[Row, ...] = ()
    refused: str | None = None
    diagnosis: Diagnosis | None = None
    tried: int = 0

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The places, and the programs."""
        return (*self.places, *self.programs)

    @property
    def first_divergence(self) -> Row | None:
        """The first place that differs, or the first program where no place does."""
        return next((row for row in self.all_rows if not row.agrees), None)

    @property
    def agrees(self) -> bool:
        """Whether nothing that could be compiled differs."""
        return self.first_divergence is None

    @property
    def summary(self) -> str:
        """What was found, in a line or two."""
        first = self.first_divergence
        if self.refused is not None:
            return f"compiled and eager were not compared: our model cannot be compiled ({self.refused})"
        if first is None:
            return "compiled and eager agree"
        found = f"compiled and eager differ: first at {first.layer or 'the output'}, by {first.max_rel:.1e}"
        if self.diagnosis is not None:
            return f"{found}\ncause: {self.diagnosis.explanation}; {self.diagnosis.rest}"
        return f"{found}\ncause: none of the {self.tried} switches of XLA that were tried" if self.tried else found

    def as_json(self) -> dict[str, object]:
        """What JSON can hold of it."""
        first = self.first_divergence
        return {
            "agrees": self.agrees,
            "first_divergence": None if first is None else first.layer,
            "programs": [row.as_json() for row in self.programs],
            "places": [row.as_json() for row in self.places],
            "refused": self.refused,
            "diagnosis": None if self.diagnosis is None else asdict(self.diagnosis),
            "tried": self.tried,
        }
