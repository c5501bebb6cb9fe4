"""
Exchanges: from a client's request to a backend's response. Floor 3.
"""
