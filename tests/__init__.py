"""
Tests with real sockets, real servers and real processes.
"""
