"""Every setting, read from the environment (prefix MANAGED_) and nowhere else, but that one that
holds a secret may stand in a file: MANAGED_S3_SECRET_KEY_FILE names it, say.

The defaults make the embedded service: SQLite, a broker of files, S3 and gateway on this machine,
all below `state_dir`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from managed.domain.errors import InvalidInput

_PREFIX: Final = "MANAGED_"
MAY_STAND_IN_A_FILE: Final = frozenset(
    {
        "broker_url",
        "database_url",
        "s3_access_key",
        "s3_secret_key",
        "smtp_password",
        "token",
        "zammad_token",
        "zammad_webhook_secret",
    }
)
"""Those that hold a secret: in `docker inspect` or `systemctl show` anybody could read them."""


class Settings(BaseSettings):
    """Paths below `state_dir` unless set; times in seconds."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    state_dir: Path = Path("var")
    images_dir: Path | None = None
    runtime_dir: Path | None = None

    database_url: str = ""
    broker_url: str = "filesystem://"
    master_key_file: Path | None = None
    api_token_file: Path | None = None
    metrics_token_file: Path | None = None

    api_url: str = ""
    token: SecretStr = SecretStr("")

    listen_address: str = "127.0.0.1"
    listen_port: int = Field(default=8000, ge=1, le=65535)
    metrics_listen: str = ""
    worker_processes: int = Field(default=4, ge=1, le=256)

    s3_endpoint: str = ""
    s3_region: str = "us-east-1"
    s3_bucket: str = "managed-backups"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")

    gateway_socket: Path | None = None
    gateway_accounts_file: Path | None = None
    gateway_url: str = ""
    gateway_ca_file: Path | None = None
    gateway_listen: str = ""
    gateway_certificate_file: Path | None = None
    gateway_key_file: Path | None = None
    restic: Path | None = None

    lease_seconds: float = Field(default=30, ge=3)
    poll_seconds: float = Field(default=1, gt=0)
    resend_seconds: float = Field(default=60, gt=0)
    silence_seconds: float = Field(default=300, gt=0)

    zammad_url: str = ""
    zammad_token: SecretStr = SecretStr("")
    zammad_webhook_secret: SecretStr = SecretStr("")
    tickets_zone: str = "UTC"

    self_backup_hours: float = Field(default=24, ge=0)
    self_backup_keep_hours: float = Field(default=48, ge=0)
    self_backup_keep_days: int = Field(default=14, ge=0)
    self_backup_keep_weeks: int = Field(default=8, ge=0)

    libvirt_uri: str = ""
    acceleration: Literal["auto", "kvm", "tcg"] = "auto"
    debian_mirror: str = ""
    debian_security_mirror: str = ""
    apt_proxy: str = ""
    lab_apt_proxy: str = ""

    public_url: str = ""
    smtp_host: str = ""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    smtp_ca_file: Path | None = None
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_from: str = ""
    webhooks_to_private_addresses: bool = False

    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _NamedFiles(settings_cls)

    @property
    def state(self) -> Path:
        return self.state_dir.absolute()

    @property
    def images(self) -> Path:
        return (self.images_dir or self.state / "images").absolute()

    @property
    def runtime(self) -> Path:
        """For sockets and private files: a short path of our own on a tmpfs, per state folder."""
        if self.runtime_dir is not None:
            return self.runtime_dir.absolute()
        own = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        base = "/run" if os.geteuid() == 0 else own
        return Path(base) / f"managed-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.state}/managed.db"

    @property
    def master_key(self) -> Path:
        return self.master_key_file or self.keys / "master.key"

    @property
    def api_token(self) -> Path:
        return self.api_token_file or self.keys / "api-token"

    @property
    def metrics_token(self) -> Path:
        return self.metrics_token_file or self.keys / "metrics-token"

    @property
    def gateway(self) -> Path:
        return self.gateway_socket or self.runtime / "gateway.sock"

    @property
    def gateway_accounts(self) -> Path:
        return self.gateway_accounts_file or self.keys / "gateway.htpasswd"

    @property
    def restic_binary(self) -> Path:
        return (self.restic or self.images / "restic" / "restic").absolute()

    def environment(self) -> dict[str, str]:
        """This environment with these settings and no others: for a child, whatever its folder."""
        fields = type(self).model_fields
        known = {_variable(name) for name in fields} | {
            _variable(f"{name}_file") for name in MAY_STAND_IN_A_FILE
        }
        others = {name: text for name, text in os.environ.items() if name.upper() not in known}
        given = {
            _variable(name): _text(value) for name, value in self if value != fields[name].default
        }
        return {
            **others,
            **given,
            "MANAGED_STATE_DIR": str(self.state),
            "MANAGED_IMAGES_DIR": str(self.images),
        }


class _NamedFiles(PydanticBaseSettingsSource):
    """The settings whose text stands in a file: MANAGED_<NAME>_FILE, without its last newline."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(_variable(f"{field_name}_file"))
        if field_name not in MAY_STAND_IN_A_FILE or not path:
            return None, field_name, False
        try:
            return Path(path).read_text().rstrip("\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"{_variable(f'{field_name}_file')}: {path} cannot be read"
                f" ({getattr(error, 'strerror', None) or 'it is no text'})",
                hint="Name a file that the user of this service can read.",
            ) from error

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: text for name, text in found.items() if text is not None}


def _variable(name: str) -> str:
    return f"{_PREFIX}{name.upper()}"


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value.absolute() if isinstance(value, Path) else value)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once; InvalidInput that names a wrong one."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [(_variable(str(e["loc"][0])), e["msg"]) for e in error.errors()]
        raise InvalidInput(
            "; ".join(f"the setting {name} is wrong: {message}" for name, message in wrong),
            hint=f"Correct {wrong[0][0]} in the environment, or unset it for the usual value.",
        ) from error
