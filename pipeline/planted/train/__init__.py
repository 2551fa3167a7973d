"""The tiny models of the project, trained on the rendered world alone: a CLIP, a detector, a multimodal LLM."""
