"""
Probes of servers, which decide who is healthy. Floor 4.
"""
