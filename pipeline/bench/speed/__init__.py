"""How fast Cuescope is beside what its models cost: ratios, each measured within one run."""
