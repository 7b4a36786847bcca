"""EmailModule against a real SMTP server: what arrives, what fails how, and what a graph cannot make it do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.free_ports import a_silent_port
from tests.integration.modules.mail_server import TLS, MailServer
from valkyr.module import Context, PermanentError
from valkyr.modules import EmailRules
from valkyr.modules.email_message import message_id_of
from valkyr.modules.email_module import EmailConfig, email, split_address, target_of

KEY = "a" * 64


async def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


RULES = EmailRules(
    allow_hosts=frozenset({"target.test", "other.test"}), resolve=here, ca_file=str(TLS / "certificate.pem")
)
MAIL = {
    "from": "Shop <shop@example.com>",
    "to": "jane@example.com",
    "subject": "Your order",
    "text": "It is on its way.",
}


async def send(server: MailServer, rules: EmailRules = RULES, key: str = KEY, **config: Any) -> dict[str, Any]:
    given = {"host": "target.test", "port": server.port, "tls": server.tls, **MAIL, **config}
    context = Context(idempotency_key=key, settings={"email": rules})
    return await email(context, EmailConfig.model_validate(given))


async def test_a_mail_arrives_as_it_was_written() -> None:
    async with MailServer() as server:
        outputs = await send(
            server,
            to=["jane@example.com", '"Doe, John" <john@example.com>'],
            cc="Bücher <books@example.com>",
            bcc=["audit@example.com", "jane@example.com"],
            reply_to="help@example.com",
            subject="Grüße",
            text="Zeile eins\nZeile zwei: ä",
            html="<p>ä</p>",
            headers={"X-Order": "7", "Auto-Submitted": "auto-generated"},
        )
    [mail] = server.mails
    everybody = ["jane@example.com", "john@example.com", "books@example.com", "audit@example.com"]
    assert (mail.sender, mail.recipients) == ("shop@example.com", everybody)
    message = mail.message
    assert message["From"] == "Shop <shop@example.com>"
    assert [address.addr_spec for address in message["To"].addresses] == everybody[:2]
    assert [address.display_name for address in message["To"].addresses] == ["", "Doe, John"]
    assert message["Cc"].addresses[0].display_name == "Bücher"
    assert message["Reply-To"] == "help@example.com"
    assert (message["Subject"], message["X-Order"], message["Auto-Submitted"]) == ("Grüße", "7", "auto-generated")
    assert "audit@example.com" not in mail.raw.decode()
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert text.get_content().splitlines() == ["Zeile eins", "Zeile zwei: ä"]
    assert html.get_content().strip() == "<p>ä</p>"
    assert mail.raw.isascii(), "servers that take seven bits take it"
    assert outputs == {
        "message_id": f"<{KEY}@example.com>",
        "recipients": everybody,
        "response": "250 kept as 42",
    }


async def test_a_repeated_mail_can_be_told_by_its_message_id() -> None:
    async with MailServer() as server:
        for _ in range(2):
            await send(server)
        await send(server, key="b" * 64)
    first, again, other = (mail.message["Message-ID"] for mail in server.mails)
    assert first == again == f"<{KEY}@example.com>"
    assert other != first


@pytest.mark.parametrize("key", ["", "of one's own> <", "ä", "a" * 500])
def test_a_message_id_is_one_word_whatever_the_key(key: str) -> None:
    assert message_id_of(key, "example.com").rpartition("@")[0].strip("<").replace(".", "").isalnum()


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_credentials_are_sent_over_tls(tls: str, tmp_path: Path) -> None:
    keep(tmp_path, "billing", "target.test")
    rules = replace(RULES, allow_hosts=frozenset(), allow_networks=("127.0.0.1/32",), credentials_folder=str(tmp_path))
    async with MailServer(tls=tls, login=("shop", "s3cret")) as server:
        await send(server, rules, credentials="billing")
        assert len(server.mails) == 1
        (tmp_path / "billing" / "password").write_text("changed\n")
        with pytest.raises(PermanentError, match="535") as refused:
            await send(server, rules, credentials="billing")
    assert "changed" not in str(refused.value)


@pytest.mark.parametrize("hosts", ["target.test", ""], ids=["named", "none"])
async def test_credentials_go_to_no_other_server(hosts: str, tmp_path: Path) -> None:
    """Whoever writes graphs could have them sent to a server of his own."""
    keep(tmp_path, "billing", hosts)
    async with MailServer(tls="starttls", login=("shop", "s3cret")) as server:
        with pytest.raises(PermanentError, match="not for other.test"):
            await send(
                server, replace(RULES, credentials_folder=str(tmp_path)), credentials="billing", host="other.test"
            )
    assert not server.connections


@pytest.mark.parametrize("kept", [False, True])
async def test_credentials_that_nobody_keeps_are_an_error_of_the_graph(kept: bool, tmp_path: Path) -> None:
    rules = replace(RULES, credentials_folder=str(tmp_path) if kept else None)
    async with MailServer(tls="starttls") as server:
        with pytest.raises(PermanentError, match="'billing'"):
            await send(server, rules, credentials="billing")
    assert not server.connections


@pytest.mark.parametrize("name", ["../billing", "/etc", ".", "..", "A", "", "a/b", "a\n"])
def test_a_name_of_credentials_leads_to_no_other_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        EmailConfig.model_validate({"host": "x.test", **MAIL, "credentials": name})


@pytest.mark.parametrize("who", ["jane@example.com", "shop@example.com", "DATA"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [("450 later", ConnectionError), ("451 later", ConnectionError), ("550 never", PermanentError)],
)
async def test_4xx_may_pass_and_5xx_will_not(who: str, answer: str, expected: type[Exception]) -> None:
    async with MailServer(says={who: answer}) as server:
        with pytest.raises(expected, match=rf"target\.test answered {answer}"):
            await send(server)
    assert not server.mails


async def test_a_mail_that_one_recipient_is_refused_goes_to_nobody() -> None:
    async with MailServer(says={"gone@example.com": "550 no such user"}) as server:
        with pytest.raises(PermanentError, match=r"550 no such user to gone@example\.com"):
            await send(server, to=["jane@example.com", "gone@example.com"])
    assert not server.mails


async def test_nobody_there_is_transient() -> None:
    server = MailServer()
    with a_silent_port() as server.port, pytest.raises(ConnectionError, match=r"target\.test"):
        await send(server)


async def test_a_server_that_hangs_up_is_transient() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as bare:
        gone = MailServer()
        gone.port = bare.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError, match=r"target\.test"):
            await send(gone)


async def test_no_answer_in_time_is_a_timeout() -> None:
    async with MailServer(data_held=asyncio.Event()) as server:
        with pytest.raises(TimeoutError, match=r"target\.test did not take the mail within 0\.2 s"):
            await send(server, timeout="PT0.2S")


async def test_a_server_that_has_the_mail_and_is_slow_to_part_does_not_get_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("valkyr.modules.email_call._GOODBYE", 3.0)
    async with MailServer(quit_held=asyncio.Event()) as server:
        outputs = await send(server, timeout="PT3S")
    assert outputs["response"] == "250 kept as 42"
    assert len(server.mails) == 1


@pytest.mark.parametrize("text", [None, "none"], ids=["no file", "no certificates"])
async def test_certificates_that_cannot_be_read_are_the_operators_to_mend(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    async with MailServer(tls="starttls") as server:
        with pytest.raises(PermanentError, match=r"ca\.pem, trusted for mail, cannot be read"):
            await send(server, replace(RULES, ca_file=str(file)))
    assert not server.connections


async def test_the_operators_timeout_is_the_longest() -> None:
    from datetime import timedelta

    async with MailServer(data_held=asyncio.Event()) as server:
        with pytest.raises(TimeoutError, match="within 0.2 s"):
            await send(server, replace(RULES, max_timeout=timedelta(seconds=0.2)), timeout="PT5M")


async def test_a_server_without_starttls_gets_no_mail_in_the_clear() -> None:
    async with MailServer() as server:
        with pytest.raises(PermanentError, match="STARTTLS"):
            await send(server, tls="starttls")
    assert not server.mails


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize(("host", "known"), [("other.test", True), ("target.test", False)], ids=["name", "issuer"])
async def test_tls_is_verified(tls: str, host: str, known: bool) -> None:
    async with MailServer(tls=tls) as server:
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            await send(server, RULES if known else replace(RULES, ca_file=None), host=host)
    assert not server.mails


async def test_mail_without_tls_goes_only_where_the_operator_says_so() -> None:
    async with MailServer() as server:
        with pytest.raises(PermanentError, match="without TLS is refused"):
            await send(server, replace(RULES, allow_hosts=frozenset(), allow_networks=("127.0.0.0/8",)))
    assert not server.connections


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::1]", "::1", "a b", "x\r\ny", "", "target.test"]
)
async def test_by_default_nothing_inside_is_reached(host: str) -> None:
    async with MailServer(tls="starttls") as server:
        with pytest.raises((PermanentError, ValidationError)):
            await send(server, EmailRules(resolve=here), host=host)
    assert not server.connections


EVIL = "jane@example.com\r\nBcc: victim@example.com"


@pytest.mark.parametrize(
    "config",
    [
        {"to": EVIL},
        {"to": f"Jane <{EVIL}>"},
        {"to": "a\r\nBcc: victim@example.com\r\n <jane@example.com>"},
        {"from": EVIL},
        {"cc": EVIL},
        {"bcc": "jane@example.com> SIZE=1"},
        {"reply_to": EVIL},
        {"subject": "x\r\nBcc: victim@example.com"},
        {"subject": "x\u2028Bcc: victim@example.com"},
        {"subject": "x\x85Bcc: victim@example.com"},
        {"headers": {"X-A": "x\nBcc: victim@example.com"}},
        {"headers": {"X-A: 1\r\nBcc": "victim@example.com"}},
        {"headers": {"Bcc": "victim@example.com"}},
        {"headers": {"message-id": "<x@y>"}},
        {"headers": {"Content-Type": "text/html"}},
        {"to": "jane@example.com, victim@example.com"},
        {"to": "jane"},
        {"to": "jane@-x.test"},
        {"to": ".jane@x.test"},
        {"to": "jané@x.test"},
        {"to": []},
        {"to": [f"a{number}@x.test" for number in range(60)], "cc": [f"b{number}@x.test" for number in range(60)]},
        {"text": None},
        {"credentials": "billing", "tls": "none"},
        {"port": 0},
    ],
    ids=lambda config: ascii(config)[:50],
)
def test_a_config_that_would_say_more_than_one_thing_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EmailConfig.model_validate({"host": "x.test", **MAIL, **config})


@pytest.mark.parametrize("end", ["\r\n.\r\n", "\n.\n", "\r.\r", "\r\n.\n", "\n.\r\n", "\r\n.\r"], ids=ascii)
@pytest.mark.parametrize("end_of_text", [True, False])
async def test_a_text_cannot_end_the_mail_and_begin_another(end: str, end_of_text: bool) -> None:
    smuggled = f"hello{end}MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nx{end}"
    async with MailServer() as server:
        await send(server, **({"text": smuggled} if end_of_text else {"text": None, "html": smuggled}))
    [mail] = server.mails
    assert mail.recipients == ["jane@example.com"]
    body = mail.message.get_body(("plain", "html"))
    assert body is not None
    assert "MAIL FROM:<evil@example.com>" in body.get_content()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jane@example.com", ("", "jane@example.com")),
        ("Jane Doe <jane.doe+x@a.example.com>", ("Jane Doe", "jane.doe+x@a.example.com")),
        ('"Doe, Jane" <jane@example.com>', ("Doe, Jane", "jane@example.com")),
        ("<jane@example.com>", ("", "jane@example.com")),
    ],
)
def test_addresses_are_taken_apart(text: str, expected: tuple[str, str]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize(
    ("host", "target"), [("Mail.Example.com.", "smtp:mail.example.com"), (5, None), ("", None), (None, None)]
)
def test_the_target_of_a_mail_is_its_server(host: Any, target: str | None) -> None:
    assert target_of({"host": host}) == target


def keep(folder: Path, name: str, hosts: str) -> None:
    (folder / name).mkdir()
    for file, text in {"host": hosts, "username": "shop\n", "password": "s3cret\n"}.items():
        (folder / name / file).write_text(text)
