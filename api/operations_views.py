"""What the routes for those who run the service answer."""

from __future__ import annotations

from api.views import View, shown_as

_READY = {
    "status": "ready",
    "parts": {"database": "ok", "bucket": "ok", "gateway": "ok", "broker": "ok"},
}


class ReadinessView(View):
    model_config = shown_as(_READY)
    status: str
    parts: dict[str, str]
