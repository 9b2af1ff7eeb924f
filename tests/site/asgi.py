"""The site for ASGI servers."""

from __future__ import annotations

from django.core.asgi import get_asgi_application

from tests.site import read_first

application = get_asgi_application()
read_first()
