"""
Measure the gateway beside its peers, in one run, by the processor time that one request costs.

`python -m contrib.bench` measures, `python -m contrib.bench.micro` times single pieces; README.md says how to read the figures.
"""
