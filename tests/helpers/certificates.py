"""Contexts for TLS: an authority that both ends trust, and another."""

import datetime
import ssl

import trustme

OURS = trustme.CA()
THEIRS = trustme.CA()
LONG_AGO = datetime.datetime(2016, 4, 1, tzinfo=datetime.UTC)


def server_context(*, clients_of: trustme.CA | None = None, expired: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    end = LONG_AGO if expired else None
    OURS.issue_cert("127.0.0.1", "localhost", not_after=end).configure_cert(context)
    if clients_of is not None:
        clients_of.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(*, trusts: trustme.CA = OURS, certified_by: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    trusts.configure_trust(context)
    if certified_by is not None:
        certified_by.issue_cert("client@example.org").configure_cert(context)
    return context
