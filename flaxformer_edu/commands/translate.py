"""`flaxformer-edu translate`: texts turned into others, by a model that was trained here."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flaxformer_edu.commands.checkpoint import open_checkpoint
from flaxformer_edu.data import open_vocabulary
from flaxformer_edu.decode import translate_texts
from flaxformer_edu.errors import InputError
from flaxformer_edu.files import write_json
from flaxformer_edu.models.seq2seq import Seq2SeqTransformer


def translate(texts: tuple[str, ...], *, checkpoint: Path, beam: int = 1, json: Path | None = None) -> int:
    """Print what the model makes of each text. Raises InputError where there is no such model, or it cannot read it."""
    if not texts:
        raise InputError("nothing to translate: hand in at least one text")
    remedy = "which does not translate: python -m train.seq2seq makes one that does"
    model, notes = open_checkpoint(checkpoint, (Seq2SeqTransformer,), ("vocabulary",), remedy)
    translations = translate_texts(model, texts, open_vocabulary(notes["vocabulary"]), beam=beam)
    rows = [{"text": text, "translation": translation} for text, translation in zip(texts, translations, strict=True)]
    table = Table("text", "translation")
    for row in rows:
        table.add_row(Text(row["text"]), Text(row["translation"]))
    Console().print(table)
    if json is not None:
        write_json(json, rows)
    return 0
