"""The gateway process: gRPC to the outside, links to the workers, and the bytes between them unopened."""
