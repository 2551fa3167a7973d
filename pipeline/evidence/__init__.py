"""What the verdicts rest on: presence of cues, their boxes, counterfactual edits and the plan of experiments."""
