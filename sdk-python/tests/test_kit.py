"""The kit that authors test their plugins with."""

import unittest
from email.message import EmailMessage

import support
from support import PluginTest
from gatepost import testing

PLUGIN = """
class settings:
    zone = setting(str, default="zen.example")

@hook("connect", fields=["remote_ip"])
def connect(session):
    return defer("rcpt", look, session)

def look(session):
    if session.core.dns(f"{session.remote_ip}.{settings.zone}").result().records:
        return fail("listed")

@hook("rcpt", fields=["karma", "sender"], reads=["seen"])
def rcpt(session, address):
    session.add_karma(1)
    session.notes["seen"] = session.notes.get("seen", 0) + 1
    session.log(f"karma {session.karma}")
    return deny("no", code=550, enhanced="5.7.1", reply=["one", "two"])

@hook("data_post", fields=["header", "path", "size", "body_start", "quarantine"])
def data_post(session):
    session.add_header("X-Seen", "1")
    session.set_quarantine("odd")
    with session.message.open() as file:
        return passed(f"{session.size} {session.body_start} {file.read()!r} {session.header!r}")

@hook("received_line")
def received_line(default):
    return ok(values=[default.upper()])

@hook("disconnect")
def disconnect(session):
    session.log("gone")

@hook("config")
def config(session, name):
    session.core.state_add("count", 5).result()
    return ok(values=session.core.config(name).result())
"""


class Kit(PluginTest):
    def load(self, settings=None, **options):
        plugin = testing.load(self.file(PLUGIN), settings, **options)
        self.addCleanup(plugin.close)
        return plugin

    def test_an_outcome_has_all_that_was_answered(self):
        outcome = self.load().session().run("rcpt", address="a@b")
        self.assertEqual((outcome.verdict, outcome.disposition, outcome.message), ("deny", None, "no"))
        self.assertEqual((outcome.code, outcome.enhanced, outcome.reply), (550, "5.7.1", ["one", "two"]))
        self.assertEqual([change["op"] for change in outcome.changes], ["karma", "note"])

    def test_a_session_keeps_what_hooks_change(self):
        plugin = self.load()
        session = plugin.session(karma=3, notes={"seen": 1})
        session.run("rcpt", address="a@b")
        session.run("rcpt", address="c@d")
        self.assertEqual((session.field("karma"), session.notes), (5, {"seen": 3}))
        self.assertEqual(plugin.logs, ["info: karma 4", "info: karma 5"])

    def test_a_message_gives_its_fields(self):
        mail = EmailMessage()
        mail["Subject"] = "x"
        mail.set_content("body")
        for message in (b"Subject: x\n\nbody\n", "Subject: x\r\n\r\nbody\r\n"):
            session = self.load().session(message=message)
            outcome = session.run("data_post")
            self.assertEqual(outcome.message, r"20 14 b'Subject: x\r\n\r\nbody\r\n' b'X-Seen: 1\r\nSubject: x\r\n'")
            self.assertEqual(session.field("quarantine"), "odd")
        self.assertIn("Subject: x", self.load().session(message=mail).run("data_post").message)

    def test_a_deferred_answer(self):
        plugin = self.load({"zone": "other.example"}, dns={"1.2.3.4.other.example": ["127.0.0.2"]})
        outcome = plugin.session(remote_ip="1.2.3.4").run("connect")
        self.assertEqual(outcome.deferred, "rcpt")
        self.assertEqual(outcome.later().disposition, "fail")
        self.assertIsNone(plugin.session(remote_ip="5.6.7.8").run("connect").later().disposition)

    def test_settings_in_force_and_what_comes_out_for_single_recipients(self):
        plugin = testing.load(self.file("""
        class settings:
            most = setting(Size, default="1KB")

        @hook("data_post", fields=["size", "recipients"])
        def data_post(session):
            session.set_route("lmtp")
            session.set_route("list", session.recipients[0])
            session.set_route(None, "c@d")
            if session.size > settings.most:
                return passed(f"more than {settings.most}").for_recipient("a@b", fail("too big", code=552))

        @hook("rcpt")
        def rcpt():
            return passed().for_recipient("a@b", fail("too early"))

        @hook("queue", fields=["route"])
        def queue(session):
            return ok(f"by {session.route}")
        """))
        self.addCleanup(plugin.close)
        session = plugin.session(message=b"x" * 20, recipients=["a@b", "c@d", "e@f"], route="lmtp")
        self.assertIsNone(session.run("data_post").disposition)
        self.assertEqual(session.routes, {"a@b": "list", "e@f": "lmtp"})
        self.assertEqual(session.run("queue").message, "by lmtp")
        session.settings = {"most": "10B"}
        outcome = session.run("data_post")
        self.assertEqual((outcome.message, list(outcome.recipients)), ("more than 10", ["a@b"]))
        own = outcome.recipients["a@b"]
        self.assertEqual((own.disposition, own.message, own.code), ("fail", "too big", 552))
        session.settings = None
        self.assertEqual(session.run("data_post").recipients, {})
        with self.assertRaisesRegex(ValueError, 'at "rcpt" there are no outcomes for single recipients'):
            session.run("rcpt", address="a@b")

    def test_values_config_and_state(self):
        state = {}
        plugin = self.load(config={"me": ["mx.example"]}, state=state)
        self.assertEqual(plugin.session().run("received_line", default="from x").values, ["FROM X"])
        self.assertEqual(plugin.session().run("config", name="me").values, ["mx.example"])
        self.assertEqual(state, {"count": 5})

    def test_the_end_of_a_connection(self):
        plugin = self.load()
        session = plugin.session()
        session.run("rcpt", address="a@b")
        session.close()
        self.assertIn("info: gone", plugin.logs)

    def test_mistakes_in_a_test_are_told(self):
        plugin = self.load()
        with self.assertRaisesRegex(ValueError, 'no session field "remote_pi"; did you mean "remote_ip"'):
            plugin.session(remote_pi="1.2.3.4")
        with self.assertRaisesRegex(ValueError, 'no function for "rctp"; did you mean "rcpt"'):
            plugin.session().run("rctp")
        with self.assertRaisesRegex(testing.Refused, "zone: is to be text, not 7"):
            self.load({"zone": 7})


if __name__ == "__main__":
    unittest.main()
