"""
Sockets as reactor descriptors. Floor 3.
"""
