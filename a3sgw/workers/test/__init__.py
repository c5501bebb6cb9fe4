"""
Tests of the workers.
"""
