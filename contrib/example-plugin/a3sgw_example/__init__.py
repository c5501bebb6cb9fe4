"""
Plugins for A3S Gateway, to be read by whoever writes one.
"""
