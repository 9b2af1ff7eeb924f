"""Settings of the processes that ``tests.processes`` starts: the tests' own, with what it says."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403 - a settings module takes all of another

globals().update(json.loads(os.environ["SITECONFIG_TEST_PROCESS"]))
