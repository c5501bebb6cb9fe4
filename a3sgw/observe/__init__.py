"""
Records of exchanges, and who reads them. Floor 2.
"""
