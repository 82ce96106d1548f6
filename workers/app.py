"""The Celery application: messages are job ids, results are in the database."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery

from managed.settings import Settings, settings

# A request and the clock's tick wait for the broker this long at most (workers/queue.py).
BROKER_SECONDS: Final = 2.0


def celery_app(settings: Settings) -> Celery:
    """Celery on the broker of the settings; embedded, that is a folder of files."""
    app = Celery("managed", broker=settings.broker_url, include=["workers.tasks"])
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_store_eager_result=False,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_concurrency=settings.worker_processes,
        broker_connection_retry_on_startup=True,
        # What it is at work on needs no broker.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # A worker waits for its broker for as long as that is away.
        broker_connection_max_retries=None,
        broker_connection_timeout=BROKER_SECONDS,
        broker_transport_options=transport_options(settings),
        task_default_queue="managed",
    )
    return app


def transport_options(settings: Settings) -> dict[str, Any]:
    """What kombu's transport is told, by the broker's kind.

    Of Redis' visibility timeout nothing is said: a message that its worker did not acknowledge in
    an hour is delivered again, and whoever gets it finds the job claimed, or ended.
    """
    scheme = settings.broker_url.partition(":")[0]
    if scheme == "filesystem":
        folder = settings.state / "broker"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(folder / "control"),
        }
    # Without it a sender waits for ever for a broker that is away, whatever its `retry` says.
    once = {"max_retries": 0, "connect_retries_timeout": BROKER_SECONDS}
    if scheme not in ("redis", "rediss"):
        return dict(once)
    return {
        **once,
        "socket_connect_timeout": BROKER_SECONDS,
        # A broker that is gone without a word (a firewall, a lost host) is noticed.
        "socket_timeout": BROKER_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


app = celery_app(settings())
