"""The only part of the package that imports Ray: jobs spread over a cluster, or over this machine's cores.

Odd here: Ray reads some variables while it is imported, so they are set before. They concern a cluster of our own only:
whoever names one in RAY_ADDRESS, as every submitted job does, keeps its settings.
"""

import os

if not os.environ.get("RAY_ADDRESS"):
    for _name, _value in {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds everything to 127.0.0.1
        "RAY_AUTH_MODE": "disabled",  # else a token is written to the home folder
        "RAY_USAGE_STATS_ENABLED": "0",
    }.items():
        os.environ.setdefault(_name, _value)
