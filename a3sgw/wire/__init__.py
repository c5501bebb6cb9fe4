"""
Protocols over bytes: no socket, no clock, no policy. Floor 1.
"""
