"""
Tests of `a3sgw_example`; run them with `trial a3sgw_example`.
"""
