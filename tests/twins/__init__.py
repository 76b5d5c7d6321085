"""PyTorch models with the names of courses, homework and tutorials: what our layers and models are compared with.

Tests and benchmarks import them from the repository; they need torch, and are no part of the installed package.
"""
