"""The planted-cue benchmark: models made to lean on a known cue, audited by Cuescope and by the published methods."""
