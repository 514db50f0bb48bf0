"""Colours that people with any kind of colour vision can tell apart, never the only difference.

The eight colours are Okabe and Ito's "Color Universal Design" (2008). On white, yellow is too pale
for a line; it is for fills only.
"""

from __future__ import annotations

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#767676"  # for what is background: chance, frozen, the rest

# One style per series: colour, line and marker change together, so print in grey stays readable.
LINES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
