"""
Tests of the middlewares.
"""
