"""Files from elsewhere, read without trusting them: NumPy's npz, and pickles of arrays."""
