"""
What happens to requests and responses on the way: one module for each configured type. Floor 2.
"""
