"""Kernels of the CPU in C: one shared library, built ahead, called by ctypes. Where it cannot load, torch serves."""
