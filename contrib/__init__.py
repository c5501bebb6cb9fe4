"""
What belongs to the project but not to the product: measuring, packaging, deployment.
"""
