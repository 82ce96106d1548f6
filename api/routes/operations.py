"""Routes for those who run the service: is it ready, and its numbers."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.dependencies import ServicesDependency
from api.operations_views import ReadinessView
from api.readiness import OK, Readiness
from api.routes._common import problems
from managed.domain.errors import Unauthorized, Unavailable

router = APIRouter(tags=["service"])

_bearer = HTTPBearer(auto_error=False, description="The content of the metrics token file.")


@router.get("/readyz", responses={503: problems()[503]})
async def read_readiness(request: Request) -> ReadinessView:
    """Are all parts there that work needs: database, broker, bucket, backup gateway? Open to
    everybody, and asked anew at most every two seconds. When one is away the answer is a problem
    whose `data.parts` names each part with what is wrong. Requests are served all the same where
    they need only the database: what tells a load balancer of this process is `/healthz`.
    """
    readiness: Readiness = request.app.state.readiness
    parts = await readiness.look()
    away = [name for name, answer in parts.items() if answer != OK]
    if away:
        raise Unavailable(
            f"not ready: {', '.join(away)}",
            hint="The log of this process says what each part answered.",
            parts=dict(parts),
        )
    return ReadinessView(status="ready", parts=dict(parts))


def metrics_reader(
    services: ServicesDependency,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Unauthorized without the metrics token, which opens nothing else."""
    given = credentials.credentials if credentials else ""
    if not hmac.compare_digest(given.encode(), services.metrics.token.reveal().encode()):
        raise Unauthorized(
            "this route needs the header Authorization: Bearer <metrics token>",
            hint="The token is in the file that MANAGED_METRICS_TOKEN_FILE names, by default"
            " keys/metrics-token in the state folder.",
        )


@router.get(
    "/metrics",
    dependencies=[Depends(metrics_reader)],
    response_class=Response,
    responses={
        **problems(),
        200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."},
    },
)
def read_metrics(services: ServicesDependency) -> Response:
    """The numbers that the database holds, in Prometheus' text format, at most ten seconds old.
    Workers and clock tell theirs themselves, where MANAGED_METRICS_LISTEN says.
    """
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
