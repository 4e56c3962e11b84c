"""Messages of the Open Inference Protocol, generated from protos/inference.

A process can load them or those of tritonclient, which have the same names, but not both: only what speaks the protocol
imports them, the server and the load tester, and that when it is about to.
"""
