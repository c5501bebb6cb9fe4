"""
Several processes that carry the traffic of one gateway. Floor 5.25.
"""
