"""Questions to a multimodal LLM about pictures that are not in the data: each is asked once, and its answers kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from pipeline.errors import BudgetReached
from pipeline.evidence.answers import answer_rows
from pipeline.images import RGB
from pipeline.models.protocols import YesNoModel
from pipeline.places import Place
from pipeline.store import Shelf

VERSION = 3
CHUNK = 32
"""Pictures between two writes of the cache: what a crash or a spent budget may cost."""


class Asker:
    """Asks about pictures by a key that says what they are: what an earlier run asked comes from the cache."""

    def __init__(
        self, model: YesNoModel, classes: Sequence[str], cache: Place, count: Callable[[str, int], None]
    ) -> None:
        self.model, self.classes, self.count = model, list(classes), count
        self.shelf = Shelf(cache, "asked", "answers", "image_id", (VERSION, self.classes, model.fingerprint))

    def ask(
        self,
        keys: Sequence[str],
        pictures: Callable[[list[int]], Sequence[RGB | None]],
        about: Sequence[Collection[int]] | None = None,
        every: bool = True,
    ) -> tuple[pa.Table, str]:
        """Rows of `answers` whose image_id is a key, and why some are missing, or empty.

        Args:
            keys: what makes a picture and the question about it the same as before.
            pictures: gives the pictures of some of the keys, by their numbers; None is a question without a picture.
            about, every: see YesNoModel.answers.

        Raises:
            UserError: the model can't be asked.
        """
        known = self.shelf.keys()
        missing = [number for number, key in enumerate(keys) if key not in known]
        stopped = ""
        for first in range(0, len(missing), CHUNK):
            chunk = missing[first : first + CHUNK]
            try:
                found = self.model.answers(pictures(chunk), every, None if about is None else [about[n] for n in chunk])
            except BudgetReached as reached:
                stopped = str(reached)
                break
            self.count("measure", len(chunk))
            names = [keys[n] for n in chunk]
            self.shelf.add(names, answer_rows(names, self.classes, found))
        return self.shelf.read(list(keys)), stopped
