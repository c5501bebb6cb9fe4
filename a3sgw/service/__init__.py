"""
Backends and the choice among them. Floor 2.
"""
