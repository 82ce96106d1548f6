"""The Celery application: messages are job ids, results are in the database."""

from __future__ import annotations

from celery import Celery

from managed.settings import Settings, settings


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
        task_default_queue="managed",
    )
    if settings.broker_url.startswith("filesystem:"):
        folder = settings.state / "broker"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        app.conf.broker_transport_options = {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(folder / "control"),
        }
    return app


app = celery_app(settings())
