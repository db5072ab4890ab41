"""URLs of servers: what they say, and that a wrong one is refused without telling its secrets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lane_obs import ConfigError
from lane_obs.distributed.redis.link import Link
from lane_obs.distributed.redis.thread_link import ThreadLink
from lane_obs.distributed.redis.url import Address, Kind, parse


@pytest.mark.parametrize(
    ("url", "address", "db"),
    [
        ("redis://here", Address("here", 6379), 0),
        ("redis://here:1/2", Address("here", 1), 2),
        ("redis://here/?db=3", Address("here", 6379), 3),
        ("redis://[::1]:7/", Address("::1", 7), 0),
        ("REDIS://here", Address("here", 6379), 0),
        ("unix:///run/a%20b.sock?db=4", Address("/run/a b.sock", 0), 4),
    ],
)
def test_one_server(url: str, address: Address, db: int) -> None:
    target = parse(url)
    assert (target.kind, target.addresses, target.db, target.tls) == (Kind.SINGLE, (address,), db, None)


def test_user_and_password_are_decoded_and_never_shown() -> None:
    target = parse("redis://a%3Ab:p%40ss%2F@here/1")
    assert (target.username, target.password) == ("a:b", "p@ss/")
    assert target.shown == "redis://***@here/1"
    assert "p@ss" not in repr(target)
    assert parse("redis://:only@here").password == "only"


def test_sentinels_have_a_service_and_a_login_of_their_own() -> None:
    target = parse("redis+sentinel://u:p@one,two:7/lanes/2?sentinel_username=s&sentinel_password=q%26")
    assert target.kind is Kind.SENTINEL
    assert target.addresses == (Address("one", 26379), Address("two", 7))
    assert (target.service, target.db, target.username, target.password) == ("lanes", 2, "u", "p")
    assert (target.sentinel_username, target.sentinel_password) == ("s", "q&")
    assert target.shown.endswith("sentinel_password=***")


def test_a_cluster_has_nodes_to_ask() -> None:
    target = parse("redis+cluster://one:1,two:2")
    assert (target.kind, target.addresses) == (Kind.CLUSTER, (Address("one", 1), Address("two", 2)))


def test_tls_checks_certificates_unless_told_otherwise() -> None:
    for url in ("rediss://here", "rediss+sentinel://here/lanes", "rediss+cluster://here"):
        tls = parse(url).tls
        assert tls is not None
        assert tls.check_hostname
    tls = parse("rediss://here?ssl_check_hostname=false").tls
    assert tls is not None
    assert not tls.check_hostname


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("", "url"),
        ("here:6379", "url"),
        ("http://:s3cret@here", "url"),
        ("redis+unix://:s3cret@here", "url"),
        ("redis://:s3cret@here:0", "url (port)"),
        ("redis://:s3cret@here:99999", "url (port)"),
        ("redis://:s3cret@here:x", "url (host)"),
        ("redis://:s3cret@", "url (host)"),
        ("redis://:s3cret@one,two", "url (host)"),
        ("redis://:s3cret/@here", "url (host)"),
        ("redis://:s3#cret@here", "url"),
        ("redis://:s3cret@[::1", "url"),
        ("redis://:s3cret@here/x", "url (db)"),
        ("redis://:s3cret@here/0/1", "url (db)"),
        ("redis://:s3cret@here?ssl_ca_certs=x", "url (ssl_ca_certs)"),
        ("redis://:s3cret@here?password=s3cret", "url (password)"),
        ("rediss://:s3cret@here?ssl_ca_certs=/nowhere", "url (ssl_ca_certs)"),
        ("rediss://:s3cret@here?ssl_certfile=/nowhere", "url (ssl_certfile)"),
        ("rediss://:s3cret@here?ssl_check_hostname=perhaps", "url (ssl_check_hostname)"),
        ("redis+sentinel://:s3cret@here", "url (service)"),
        ("redis+sentinel://here?sentinel_password=s3cret", "url (service)"),
        ("redis+cluster://:s3cret@here/1", "url (db)"),
        ("unix://:s3cret@", "url (path)"),
        ("unix://:s3cret@here/run/a.sock", "url (path)"),
    ],
)
def test_a_wrong_url_is_refused_by_the_name_of_its_part(url: str, field: str) -> None:
    for build in (parse, lambda url: Link(url, timeout=1), lambda url: ThreadLink(url, timeout=1)):
        with pytest.raises(ConfigError) as caught:
            build(url)
        assert caught.value.field == field
        told = f"{caught.value!s} {caught.value!r} {caught.value.value!r} {caught.value.__cause__!r}"
        assert "s3" not in told


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="bytes"):
        parse(b"redis://:s3cret@here")  # type: ignore[arg-type]


def test_without_hiredis_the_broker_says_what_to_install() -> None:
    program = "import sys; sys.modules['hiredis'] = None; from lane_obs.distributed import RedisBroker"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "pip install 'lane-obs[redis]'" in done.stderr.splitlines()[-1]
