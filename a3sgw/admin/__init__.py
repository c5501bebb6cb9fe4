"""
The dashboard API. Floor 4.
"""
