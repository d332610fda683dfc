"""Profiles of Hypothesis: the usual one of ``make test``, and the long one of ``make fuzz``.

Neither has limits on the time of the wall: those fail where the machine is busy, and say nothing of the code.
"""

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "500")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("suite", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# What starts tests in the background may have it ignored, and the processes that tests start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)
