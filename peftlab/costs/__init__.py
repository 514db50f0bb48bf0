"""What training and serving cost, from a config alone: memory, FLOPs, time, energy. Predict, then measure.

    from peftlab.costs import memory
    print(memory.training("llama-2-7b", "lora", batch=4, sequence=512))     # a table
    memory.what_fits(24, "qlora")                                           # which published models fit in 24 GB

Each file says what it assumes. `live.py` measures what `memory.py` predicts.
"""
