"""The tasks of the site, for workers of Celery."""

from __future__ import annotations

import os
from typing import Any

import django
from celery import Celery
from celery.signals import worker_process_init

from tests.site import BROKER, read_first, sight

django.setup()
app = Celery(broker=os.environ[BROKER], backend=os.environ[BROKER])
read_first()


@worker_process_init.connect  # type: ignore[untyped-decorator] # Celery has no types
def begin(**kwargs: Any) -> None:
    """Celery gives a child four seconds to come up, this included."""
    read_first()


@app.task(name="see")  # type: ignore[untyped-decorator] # the same
def see() -> dict[str, Any]:
    """What the process that runs this task sees."""
    return sight()
