"""A Gateway without a server: who may come in, for tests to look at."""

from __future__ import annotations

from dataclasses import dataclass, field

from managed.domain.errors import GatewayUnavailable
from managed.domain.secrets import Secret
from managed.drivers.gateway_accounts import account_line


@dataclass
class FakeGateway:
    """`is_up` says whether it answers; the socket that it names does not exist."""

    accounts: dict[str, Secret] = field(default_factory=dict)
    is_up: bool = True
    socket_path: str = "/run/managed/fake-gateway.sock"

    def admit(self, account: str, password: Secret) -> None:
        account_line(account, password)
        self.accounts[account] = password

    def dismiss(self, account: str) -> None:
        self.accounts.pop(account, None)

    def socket(self) -> str:
        if not self.is_up:
            raise GatewayUnavailable("the backup gateway does not answer at its socket")
        return self.socket_path

    def lets_in(self, account: str, password: Secret) -> bool:
        return self.accounts.get(account) == password
