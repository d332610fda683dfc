"""State outside the process, behind the ports of the core: limits, ended sessions, issuers' keys, the audit."""
