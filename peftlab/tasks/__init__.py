"""Real models, real data, one plain training loop.

`from peftlab.tasks import models, datasets, training, metrics`; importing this package alone loads
neither torch nor transformers.
"""
