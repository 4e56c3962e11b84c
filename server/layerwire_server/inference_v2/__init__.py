"""Messages of the Open Inference Protocol, generated from protos/inference.

A process can load them or those of tritonclient, which have the same names, but not both: the SDK never imports them.
"""
