"""What the gateway shows a backend: tokens that it gets for itself or for the principal it serves.

A token is for one backend and goes nowhere else. The client's own token goes to the token endpoint of the configured
issuer at most (``token_exchange``), never to a backend.
"""
