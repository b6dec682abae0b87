#!/usr/bin/python3
"""An SMTP server (aiosmtpd) that keeps what it gets: mail_server.py FOLDER PORT [cert key]. A JSON file a mail; user me, password s3cret.
With a certificate it offers STARTTLS and wants it before a login; addresses at refused.example are refused."""
import json, pathlib, signal, ssl, sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])


class Keep:
    count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.endswith("@refused.example"):
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        doc = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "text": envelope.content.decode(), "tls": session.ssl is not None,
               "login": session.auth_data}
        part = folder / f".{self.count}"
        part.write_text(json.dumps(doc))
        part.rename(folder / f"{self.count}.json")
        return "250 kept"


def login(server, session, envelope, mechanism, data):
    good = data.login == b"me" and data.password == b"s3cret"
    return AuthResult(success=good, handled=False, auth_data="me" if good else None)


context = None
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[3:5])
c = Controller(Keep(), hostname="127.0.0.1", port=port, authenticator=login, auth_require_tls=context is not None, tls_context=context)
c.start()
signal.sigwait({signal.SIGTERM, signal.SIGINT})
c.stop()
