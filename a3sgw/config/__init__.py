"""
Configuration: text to tree to model to checked model. Floor 1.
"""
