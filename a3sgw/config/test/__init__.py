"""
Tests of this room.
"""
