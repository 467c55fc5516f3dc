import unittest

import support
from support import CODECS, PluginTest
from gatepost.testing import Answers

PLAIN = """
@hook("connect", fields=["remote_ip"])
def connect(session):
    session.notes["at"] = "connect"
    return defer("rcpt", look, session, "zen.example")

def look(session, zone):
    records = session.core.dns(f"{session.remote_ip}.{zone}").result().records
    session.add_karma(-1)
    session.tried = True
    return fail(f"listed in {zone}: {records[0]}")

@hook("noop", fields=["remote_ip"])
def noop(session):
    return passed(repr(getattr(session, "tried", None)))
"""
COROUTINE = PLAIN.replace("def look", "async def look").replace('session.core.dns(f"{session.remote_ip}.{zone}").result()', '(await session.core.dns(f"{session.remote_ip}.{zone}"))')
OBJECT = COROUTINE.replace('look, session, "zen.example"', 'look(session, "zen.example")')


class Defer(PluginTest):
    def test_the_answer_comes_later_with_its_own_changes(self):
        for source in (PLAIN, COROUTINE, OBJECT):
            for codec in CODECS:
                with self.subTest(source, codec=codec.name):
                    core = self.core(source, codec=codec)
                    number = core.send_hook("connect", ["a"], connection={"remote_ip": "1.2.3.4"})
                    result = core.receive()
                    note = {"op": "note", "scope": "connection", "name": "at", "value": "connect"}
                    self.assertEqual(result["results"], [{"plugin": "a", "defer": "rcpt", "changes": [note]}])
                    call = core.receive()
                    self.assertEqual((call["for"], call["params"]["name"]), (number, "1.2.3.4.zen.example"))
                    # The session goes on meanwhile, with another client address to tell the turns apart.
                    self.assertEqual(core.hook("noop", ["a"], connection={"remote_ip": "5.6.7.8"})[0]["message"], "None")
                    core.send({"kind": "reply", "id": call["id"], "ok": {"status": "found", "records": ["127.0.0.2"]}})
                    self.assertEqual(
                        core.receive(),
                        {"kind": "verdict", "id": number, "result": {"plugin": "a", "disposition": "fail", "message": "listed in zen.example: 127.0.0.2", "changes": [{"op": "karma", "add": -1}]}},
                    )
                    self.assertEqual(core.hook("noop", ["a"])[0]["message"], "True")

    def test_the_next_plugin_is_asked_at_once(self):
        core = self.core(PLAIN, "@hook('connect')\ndef connect(): return passed('b')\n", answers=Answers(dns={"1.2.3.4.zen.example": ["x"]}))
        entries = core.hook("connect", ["a", "b"], connection={"remote_ip": "1.2.3.4"})
        self.assertEqual(entries[1]["message"], "b")
        self.assertEqual(core.verdict(core.last_id)["message"], "listed in zen.example: x")

    def test_an_exception_is_the_plugins_error(self):
        for source in (PLAIN, COROUTINE):
            core = self.core(source)
            with self.stderr() as stderr:
                core.hook("connect", ["a"], connection={"remote_ip": "1.2.3.4"})
                verdict = core.verdict(core.last_id)
            self.assertEqual((verdict["disposition"], verdict["message"]), ("error", "IndexError: list index out of range"))
            self.assertIn("in look", stderr.getvalue())

    def test_cancel_stops_it(self):
        for source in (PLAIN, COROUTINE):
            core = self.core(source)
            number = core.send_hook("connect", ["a"], connection={"remote_ip": "1.2.3.4"})
            core.receive()
            call = core.receive()
            core.send({"kind": "cancel", "id": number, "reason": "disconnect"})
            core.send({"kind": "reply", "id": call["id"], "ok": {"status": "found", "records": ["127.0.0.2"]}})
            self.assertEqual(core.hook("noop", ["a"])[0]["message"], "None")
            core.close()
            self.assertEqual(core.verdicts, {})

    def test_cancel_ends_the_wait_for_a_call(self):
        core = self.core("""
        @hook("noop")
        def noop(session):
            return defer("rcpt", look, session)
        def look(session):
            try:
                session.core.dns("a").result()
            except Cancelled as e:
                session.log(f"cancelled: {e}")
        """)
        number = core.send_hook("noop", ["a"])
        self.assertEqual([core.receive()["kind"] for _ in range(2)], ["result", "call"])
        core.send({"kind": "cancel", "id": number, "reason": "disconnect"})
        self.assertEqual(core.receive(timeout=10)["message"], "cancelled: disconnect")

    def test_two_of_a_segment_keep_their_changes_apart(self):
        source = """
        @hook("noop")
        def noop(session):
            return defer("rcpt", look, session)
        def look(session):
            session.log("began")
            session.core.dns("a").result()
            session.notes[session.plugin.name] = 1
            session.core.dns("b").result()
        """
        core = self.core(source, source, answers=Answers())
        core.send_hook("noop", ["a", "b"])
        calls = []
        while len(calls) < 2:
            calls += [message for message in [core.receive()] if message["kind"] == "call"]
        for call in calls:
            core.send({"kind": "reply", "id": call["id"], "ok": {"status": "no_such_name"}})
        # Both have made their change when both ask again.
        calls = [core.receive(), core.receive()]
        for call in calls:
            core.send({"kind": "reply", "id": call["id"], "ok": {"status": "no_such_name"}})
        for _ in calls:
            result = core.receive()["result"]
            self.assertEqual([change["name"] for change in result["changes"]], [result["plugin"]])

    def test_it_cannot_be_deferred_again(self):
        core = self.core("@hook('connect')\ndef connect():\n    return defer('rcpt', lambda: defer('data', print))\n")
        core.hook("connect", ["a"])
        self.assertEqual(core.verdict(core.last_id)["message"], "a deferred answer cannot be deferred again")


if __name__ == "__main__":
    unittest.main()
