"""Longer measurements. `python -m peftlab.bench NAME` runs one and keeps its results in data/results/NAME.json."""
