"""
Decisions as pure machines; the time is an argument. Floor 1.
"""
