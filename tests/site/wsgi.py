"""The site for WSGI servers."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application

from tests.site import read_first

application = get_wsgi_application()
read_first()
