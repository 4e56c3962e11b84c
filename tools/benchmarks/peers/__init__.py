"""Other servers of the same kind that Layerwire is compared with: mosec and Triton, in an environment of their own."""
