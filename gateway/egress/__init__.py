"""What leaves the gateway of its own accord: which addresses may be reached, and documents fetched over HTTP."""
