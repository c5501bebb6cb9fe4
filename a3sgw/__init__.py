"""
A3S Gateway: an API gateway and reverse proxy, configured in HCL, on Twisted.
"""
