"""measure: for every (class, cue), association in the data and gaps in the model's predictions, in each half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Audit
from pipeline.evidence.boxes import BoxFinder
from pipeline.geometry import inside
from pipeline.metrics import association, intervals, ravl, spurlens
from pipeline.models.protocols import Detector, RegionEncoder
from pipeline.evidence.presence import Cues, find_cues
from pipeline.records import SCHEMAS, table
from pipeline.stages.cluster import matrix
from pipeline.evidence.texts import text_embeddings

VERSION = 1
LEAST_EVIDENCE = 1.64
"""A cue is worth an experiment if, in the selection half, some sign of it is this many standard errors above zero."""
