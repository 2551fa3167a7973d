"""A region encoder: the model under test's own backbone, so that regions lie as the model itself sees them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.errors import UserError
from pipeline.models.batching import Batch, Batches
from pipeline.models.protocols import Classifier, RegionEncoder


def model_encoder(
    device: str,
    model: Classifier,
    *,
    regions: Literal["roi_align", "crops"] = "roi_align",
    context: Annotated[float, Field(ge=0)] = 0.0,
    batch: Batch = "auto",
) -> RegionEncoder:
    """Embeddings by the model under test, with its weights, its preprocessing and its precision.

    Args:
        device: not used: the model has its own.
        model: the model under test; it must have `region_encoder(regions, context, batches)`, see
            pipeline/models/protocols.py.
        regions: "roi_align" makes one forward an image for all its boxes; "crops" encodes each box alone.
        context: for crops: what is kept around the box, as a share of its width and height on each side.
        batch: most images in one forward, or auto: as many as fit; it doesn't change the answers.

    Raises:
        UserError: the model lets nobody look at its backbone: an endpoint, a file of predictions.
    """
    make = getattr(model, "region_encoder", None)
    if make is None:
        raise UserError(
            f"embed: the model under test ({type(model).__name__}) has no backbone that regions could be embedded by. "
            "Use another encoder, such as embed: {kind: open_clip, name: ...}."
        )
    return make(regions, context, Batches(batch))
