"""
The doors of the gateway. Floor 4.
"""
