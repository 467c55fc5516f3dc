"""The example plugins, each driven without a server."""

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE.parent.parent / "sdk-python" / "src"))

from gatepost import testing

ADDRESSES = ["bob@example.org", "Carol@Example.org"]

MULTIPART = """\
From: a@example.org
Content-Type: multipart/mixed; boundary="x"

--x
Content-Type: text/plain

see attached
--x
%s

data
--x--
"""


class RefuseRecipient(unittest.TestCase):
    def setUp(self):
        self.plugin = testing.load(HERE / "refuse_recipient.py", {"addresses": ADDRESSES})
        self.addCleanup(self.plugin.close)

    def test_refuses_a_listed_address_whatever_its_case(self):
        for address in ("bob@example.org", "BOB@example.ORG", "carol@example.org"):
            outcome = self.plugin.session().run("rcpt", address=address)
            self.assertEqual((outcome.disposition, outcome.verdict, outcome.message), ("fail", None, "no such user here"))

    def test_skips_any_other(self):
        outcome = self.plugin.session().run("rcpt", address="alice@example.org")
        self.assertEqual((outcome.disposition, outcome.message), ("skip", "not listed"))

    def test_says_what_it_is_told_to_say(self):
        with testing.load(HERE / "refuse_recipient.py", {"addresses": ADDRESSES, "message": "gone"}) as plugin:
            self.assertEqual(plugin.session().run("rcpt", address="bob@example.org").message, "gone")

    def test_needs_a_list(self):
        with self.assertRaisesRegex(testing.Refused, "addresses: is required"):
            testing.load(HERE / "refuse_recipient.py")
        with self.assertRaisesRegex(testing.Refused, "addresses.1: is to be text, not 7"):
            testing.load(HERE / "refuse_recipient.py", {"addresses": ["a@b", 7]})


class TagHeader(unittest.TestCase):
    def test_adds_its_header_at_the_top(self):
        with testing.load(HERE / "tag_header.py") as plugin:
            session = plugin.session(message="Subject: x\n\nbody\n")
            outcome = session.run("data_post")
            self.assertEqual((outcome.disposition, outcome.message), ("pass", "tagged with X-Gatepost-Tag"))
            self.assertEqual(session.field("header"), b"X-Gatepost-Tag: seen\r\nSubject: x\r\n")

    def test_takes_name_and_value_from_its_settings(self):
        with testing.load(HERE / "tag_header.py", {"header": "X-Mine", "value": "yes"}) as plugin:
            outcome = plugin.session(message="Subject: x\n\nbody\n").run("data_post")
            self.assertEqual(outcome.message, "tagged with X-Mine")
            self.assertEqual(outcome.changes, [{"op": "add_header", "name": "X-Mine", "value": "yes", "at": "top"}])


class QuarantineAttachment(unittest.TestCase):
    def setUp(self):
        self.plugin = testing.load(HERE / "quarantine_attachment.py")
        self.addCleanup(self.plugin.close)

    def quarantine(self, message):
        session = self.plugin.session(message=message)
        outcome = session.run("data_post")
        found = session.field("quarantine")
        if found is None:
            self.assertEqual((outcome.disposition, outcome.verdict, outcome.message), ("pass", None, "no forbidden attachment"))
        else:
            self.assertEqual((outcome.disposition, outcome.verdict, outcome.message), ("fail", "declined", found + " quarantined"))
        return found

    def test_finds_the_name_in_every_place_and_writing(self):
        for header, name in (
            ('Content-Disposition: attachment; filename="evil.exe"', "evil.exe"),
            ("content-disposition: attachment; size=7; FILENAME=Evil.EXE", "Evil.EXE"),
            ('Content-Type: application/x-msdownload; name="a b.scr"', "a b.scr"),
            ('Content-Disposition: attachment;\n\tfilename="folded.vbs"', "folded.vbs"),
            ("Content-Disposition: attachment; filename*=utf-8''%65vil.js", "evil.js"),
            ("Content-Disposition: attachment; filename*=UTF-8'de'b%C3%B6se.exe", "böse.exe"),
            (r'Content-Disposition: attachment; filename="say \"hi\".exe"', 'say "hi".exe'),
        ):
            with self.subTest(header):
                self.assertEqual(self.quarantine(MULTIPART % header), f"attachment {name}")

    def test_looks_at_the_header_of_the_message_itself(self):
        self.assertEqual(self.quarantine("Content-Type: text/plain; name=x.exe\n\nbody\n"), "attachment x.exe")

    def test_lets_other_messages_pass(self):
        for message in (
            MULTIPART % 'Content-Disposition: attachment; filename="report.pdf"',
            MULTIPART % 'Content-Disposition: attachment; name="evil.exe"',
            MULTIPART % 'Content-Disposition: attachment; x="; filename=evil.exe"',
            MULTIPART % 'X-Other: attachment; filename="evil.exe"',
            "Subject: x\n\nContent-Disposition: attachment; filename=evil.exe\n",
        ):
            with self.subTest(message):
                self.assertIsNone(self.quarantine(message))

    def test_knows_no_wildcards_but_two(self):
        with testing.load(HERE / "quarantine_attachment.py", {"names": ["[ab]?.*"]}) as plugin:
            for name, disposition in (("[ab]x.txt", "fail"), ("ax.txt", "pass"), ("[ab].txt", "pass")):
                session = plugin.session(message=f"Content-Disposition: attachment; filename={name}\n\nbody\n")
                self.assertEqual(session.run("data_post").disposition, disposition)


class Quota(unittest.TestCase):
    MESSAGE = b"Subject: x\r\n\r\nhell\r\n"
    RECIPIENTS = ["BOB@example.org", "carol@example.org", "new@example.org"]

    def setUp(self):
        sizes = ["Bob@Example.org 1004", "carol@example.org\t1005"]
        self.plugin = testing.load(HERE / "quota.py", {"limit": "1KB"}, config={"mailbox_sizes": sizes})
        self.addCleanup(self.plugin.close)
        self.session = self.plugin.session(message=self.MESSAGE, recipients=self.RECIPIENTS)

    def test_refuses_only_full_mailboxes(self):
        outcome = self.session.run("data_post")
        self.assertEqual((outcome.disposition, outcome.message), ("pass", "room in 2 of 3 mailboxes"))
        self.assertEqual(list(outcome.recipients), ["carol@example.org"])
        full = outcome.recipients["carol@example.org"]
        self.assertEqual((full.disposition, full.verdict, full.message), ("fail", None, "mailbox full"))

    def test_takes_the_limit_that_is_in_force(self):
        self.session.settings = {"limit": "2KB"}
        outcome = self.session.run("data_post")
        self.assertEqual((outcome.message, outcome.recipients), ("room in 3 of 3 mailboxes", {}))

    def test_needs_a_size(self):
        with self.assertRaisesRegex(testing.Refused, "limit: is to be a size"):
            testing.load(HERE / "quota.py", {"limit": "much"})


if __name__ == "__main__":
    unittest.main()
