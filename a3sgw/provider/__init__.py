"""
Where configuration comes from: files that change, and other providers.
"""
