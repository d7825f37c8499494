"""Kernels in Triton for NVIDIA GPUs, each with the plain twin that tests compare it with.

They were run by Triton's interpreter on CPUs only, never yet on a GPU: so nothing chooses them unless GLM_CUDA_KERNELS
says triton (docs/design/0010-engine.md). Import this package where it is used: Triton itself takes time to import.
"""
