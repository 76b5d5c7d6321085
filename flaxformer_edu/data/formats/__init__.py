"""Files from elsewhere, read without trusting them: pictures, NumPy's npz, HDF5, and pickles of arrays."""
