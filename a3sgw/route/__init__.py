"""
Rules: text to tree to predicate to table. Floor 1.
"""
