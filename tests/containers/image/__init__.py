"""The image, built and started for real by podman, on a base made here: `make image-check`.

Not tried: the official Python base image (Debian's Python stands in for it), a registry, docker build, AppArmor
profiles; of target cuda, CUDA's wheels and a GPU.
"""
