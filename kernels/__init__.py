"""Numeric kernels: one function each, with a reference body, a fast CPU body and a CUDA body."""
