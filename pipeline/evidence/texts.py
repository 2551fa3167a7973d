"""Text vectors of a region encoder, through the feature cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.models.protocols import Floats, RegionEncoder
from pipeline.places import Place
from pipeline.records import SCHEMAS
from pipeline.store import Shelf, key_of

VERSION = 1


def text_embeddings(
    encoder: RegionEncoder, texts: Sequence[str], cache: Place, count: Callable[[str, int], None]
) -> Floats:
    """Unit vectors (n, d) of texts, in order; only texts not seen before are given to the encoder."""
    shelf = Shelf(cache, "texts", "embeddings", "image_id", (VERSION, encoder.fingerprint))
    keys = [key_of(text) for text in texts]
    known = shelf.keys()
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        vectors = encoder.texts(list(missing.values()))
        count("texts", len(missing))
        rows = pa.table({"image_id": list(missing), "embedding": list(vectors)}, schema=SCHEMAS["embeddings"])
        shelf.add(missing, rows)
    stored = shelf.read(sorted(set(keys)))
    by_key = dict(zip(stored["image_id"].to_pylist(), stored["embedding"].to_pylist(), strict=True))
    return np.array([by_key[key] for key in keys], dtype=np.float32)
