from __future__ import annotations

from pathlib import Path

from managed.lab.apt_cache import apt_cache_configuration, guest_proxy_url


def test_cache_listens_on_loopback_and_writes_to_its_own_folders_only() -> None:
    text = apt_cache_configuration(Path("/state/apt"), Path("/state/apt/log"), 20123, "")
    lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    assert lines["BindAddress"] == "127.0.0.1"
    assert lines["Port"] == "20123"
    assert lines["CacheDir"] == "/state/apt/cache"
    assert lines["LogDir"] == "/state/apt/log"
    assert "Proxy" not in lines


def test_cache_goes_through_the_proxy_of_the_host() -> None:
    text = apt_cache_configuration(Path("/a"), Path("/l"), 20123, "http://192.0.2.1:3128")
    assert "Proxy: http://192.0.2.1:3128" in text.splitlines()


def test_guests_see_the_cache_where_user_mode_networking_shows_the_host() -> None:
    assert guest_proxy_url(20123) == "http://10.0.2.2:20123"
