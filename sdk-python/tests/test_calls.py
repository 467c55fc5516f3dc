import os
import unittest

import support
from support import PluginTest
from gatepost.frames import frame
from gatepost.msgpack_builtin import encode
from gatepost.testing import Answers

ANSWERS = dict(
    dns={"2.0.0.127.zen.example.net": ["127.0.0.2"], ("example.org", "MX"): ["10 mx.example.org"], "slow.example": "temporary", "empty.example": "no_records"},
    config={"badmailfrom": ["a@b", "c@d"]},
    recipients={"bob@example.org": "valid", "away@example.org": "temporary"},
)

METHODS = """
{async_}def look(core):
    found = {wait(core.dns("2.0.0.127.zen.example.net."))}
    mx = {wait(core.dns("example.org", "MX"))}
    none = {wait(core.dns("nowhere.example"))}
    empty = {wait(core.dns("empty.example"))}
    try:
        {wait(core.dns("slow.example"))}
    except CallError as e:
        temporary = e
    await_nothing = {wait(core.state_set("a/k", b"v", ttl=60))}
    return [found.records, mx.records, none.status, empty.status, temporary.code, str(temporary),
            {wait(core.config("badmailfrom"))}, {wait(core.config("other"))},
            {wait(core.state_get("a/k"))}, {wait(core.state_get("a/none"))}, {wait(core.state_add("a/n", 2))}, {wait(core.state_add("a/n"))},
            {wait(core.state_delete("a/k"))}, {wait(core.state_get("a/k"))}, {wait(core.message_read(1, 2))}, {wait(core.more_time(5))},
            {wait(core.recipient_valid("bob@example.org"))}, {wait(core.recipient_valid(Address("eve@example.org")))}]

@hook("noop")
{async_}def noop(session):
    session.notes["answers"] = {await_}look(session.core)
"""
EXPECTED = [
    ["127.0.0.2"], ["10 mx.example.org"], "no_such_name", "no_records", "temporary", "the name server does not answer",
    ["a@b", "c@d"], [], b"v", None, 2, 3, None, None, b"el", None, "valid", "unknown",
]


def methods(asynchronous):
    """The plugin above in one of its two writings."""
    lines = []
    for line in METHODS.splitlines():
        while "{wait(" in line:
            start = line.index("{wait(")
            end = line.index(")}", start)
            call = line[start + 6 : end]
            line = line[:start] + (f"(await {call})" if asynchronous else f"{call}.result()") + line[end + 2 :]
        lines.append(line.format(async_="async " if asynchronous else "", await_="await " if asynchronous else ""))
    return "\n".join(lines)


SENDING = """
@hook("queue")
async def queue(session):
    core = session.core
    sent = core.submit(["b@c"], "Subject: x\\n\\nhello\\n")
    told = core.bounce("a@b", "b@c", "no mailbox", b"Subject: x\\r\\n", code=551, enhanced="5.1.6")
    return passed(f"{await sent} {await told} {await core.bounce('', 'b@c', 'no', b'')}")
"""


class Sending(PluginTest):
    def test_messages_and_bounces_go_to_the_outbox(self):
        core = self.core(SENDING)
        result = core.hook("queue", ["a"])[0]
        self.assertEqual(result["message"], "0000000000000001 0000000000000001 None")
        self.assertEqual(core.answers.submitted, [{"sender": "", "recipients": ["b@c"], "message": b"Subject: x\n\nhello\n"}])
        told = {"sender": "a@b", "recipient": "b@c", "text": "no mailbox", "message": b"Subject: x\r\n", "code": 551, "enhanced": "5.1.6"}
        self.assertEqual(core.answers.bounced[0], told)


class Methods(PluginTest):
    def test_from_a_plain_function_and_from_a_coroutine(self):
        for asynchronous in (False, True):
            with self.subTest(asynchronous=asynchronous):
                core = self.core(methods(asynchronous), answers=Answers(**ANSWERS))
                core.answers.message = b"hello"
                self.assertEqual(core.hook("noop", ["a"]), [{"plugin": "a", "changes": [{"op": "note", "scope": "connection", "name": "answers", "value": EXPECTED}]}])

    def test_a_coroutine_may_also_wait_as_a_plain_function_does(self):
        core = self.core(methods(False).replace("def noop", "async def noop"), answers=Answers(**ANSWERS))
        core.answers.message = b"hello"
        self.assertEqual(core.hook("noop", ["a"])[0]["changes"][0]["value"], EXPECTED)

    def test_they_name_the_hook_they_belong_to(self):
        core = self.core("@hook('noop')\ndef noop(session):\n    session.core.dns('a').result()\n    session.log('said', level='warn')\n")
        number = core.send_hook("noop", ["a"])
        call = core.receive()
        self.assertEqual(call, {"kind": "call", "id": call["id"], "for": number, "method": "dns", "params": {"name": "a", "type": "A"}})
        core.send({"kind": "reply", "id": call["id"], "ok": {"status": "found", "records": [b"1.2.3.4"]}})
        self.assertEqual(core.receive(), {"kind": "log", "level": "warn", "message": "said", "plugin": "a", "for": number})

    def test_several_are_on_their_way_at_once(self):
        core = self.core("""
        @hook("noop")
        def noop(session):
            calls = [session.core.dns(name) for name in ("a", "b", "c")]
            return passed(" ".join(call.result().records[0] for call in calls))
        """)
        core.send_hook("noop", ["a"])
        calls = [core.receive() for _ in range(3)]
        for call in reversed(calls):
            core.send({"kind": "reply", "id": call["id"], "ok": {"status": "found", "records": [call["params"]["name"] * 2]}})
        self.assertEqual(core.receive()["results"][0]["message"], "aa bb cc")

    def test_an_error_is_the_hooks_error_unless_it_is_caught(self):
        core = self.core("@hook('noop')\ndef noop(session):\n    session.core.dns('slow.example').result()\n", answers=Answers(**ANSWERS))
        with self.stderr():
            self.assertEqual(core.hook("noop", ["a"])[0]["message"], "CallError: the name server does not answer")

    def test_parameters_that_cannot_travel(self):
        core = self.core("@hook('noop')\ndef noop(session):\n    session.core.state_set('k', object())\n")
        with self.stderr():
            self.assertIn("TypeError", core.hook("noop", ["a"])[0]["message"])


class Waiting(PluginTest):
    def test_other_hooks_wait_in_order_while_a_plain_one_waits(self):
        for loop, writing in ((False, "def"), (True, "def"), (True, "async def")):
            with self.subTest(loop=loop, writing=writing):
                core = self.core(
                    """
                    order = []
                    @hook("rcpt")
                    def rcpt(session):
                        order.append("rcpt begins")
                        session.core.dns("a").result()
                        order.append("rcpt ends")
                    @hook("noop")
                    def noop(session):
                        order.append("noop " + session.id)
                        return passed(", ".join(order))
                    """
                    .replace("def rcpt", writing + " rcpt")
                    + ("\n                    @hook('quit')\n                    async def quit(): pass\n" if loop else "")
                )
                first = core.send_hook("rcpt", ["a"], session="s1")
                call = core.receive()
                second = core.send_hook("noop", ["a"], session="s2")
                third = core.send_hook("noop", ["a"], session="s3")
                core.send({"kind": "reply", "id": call["id"], "ok": {"status": "no_such_name"}})
                results = [core.receive(timeout=10) for _ in range(3)]
                self.assertEqual([result["id"] for result in results], [first, second, third])
                self.assertEqual(results[2]["results"][0]["message"], "rcpt begins, rcpt ends, noop s2, noop s3")

    def test_a_result_does_not_wait_for_another_sessions_slow_hook(self):
        gate = self.folder + "/gate"
        os.mkfifo(gate)
        core = self.core(f"""
        @hook("noop")
        def noop():
            time.sleep(0.001)
        @hook("quit")
        def quit():
            open({gate!r}).close()
        """)
        hooks = [{"kind": "hook", "id": n, "hook": name, "plugins": ["a"], "session": name} for n, name in ((1, "noop"), (2, "quit"))]
        core.send_bytes(b"".join(frame(encode(hook)) for hook in hooks))
        try:
            self.assertEqual(core.receive(timeout=10)["id"], 1)
        finally:
            open(gate, "w").close()
        self.assertEqual(core.receive()["id"], 2)

    def test_a_call_from_a_thread_of_the_plugins_own(self):
        core = self.core("""
        @setup
        def start(plugin):
            def ask():
                plugin.log("heard " + plugin.core.dns("a").result().records[0])
            threading.Thread(target=ask, daemon=True).start()
        """, answers=Answers(dns={"a": ["1.2.3.4"]}))
        while not core.logs:
            message = core.receive()
            if message["kind"] == "call":
                core.send({"kind": "reply", "id": message["id"], **core.answers.reply(message)})
            elif message["kind"] == "log":
                core.logs.append(message)
        self.assertEqual(core.logs[0]["message"], "heard 1.2.3.4")

    def test_the_end_of_the_channel_ends_the_wait(self):
        for source in (
            "@hook('noop')\ndef noop(session):\n    session.core.dns('a').result()\n",
            "@hook('noop')\nasync def noop(session):\n    await session.core.dns('a')\n",
            "@hook('noop')\ndef noop(session):\n    return defer('rcpt', lambda: session.core.dns('a').result())\n",
        ):
            core = self.core(source)
            core.send_hook("noop", ["a"])
            while core.receive()["kind"] != "call":
                pass
            with self.stderr() as stderr:
                core.close()
            self.assertFalse(core._thread.is_alive())
            self.assertIn("CallError: the server closed the channel", stderr.getvalue())

    def test_cancel_ends_the_wait(self):
        for source in (
            "@hook('noop')\ndef noop(session):\n    session.core.dns('a').result()\n",
            "@hook('noop')\nasync def noop(session):\n    await session.core.dns('a')\n",
        ):
            core = self.core(source, "@hook('noop')\ndef noop(): return passed('ran')\n")
            number = core.send_hook("noop", ["a", "b"])
            self.assertEqual(core.receive()["kind"], "call")
            core.send({"kind": "cancel", "id": number, "reason": "timeout"})
            result = core.receive()
            self.assertEqual((result["id"], result["results"]), (number, [{"plugin": "a", "disposition": "error", "message": "cancelled: timeout"}]))
            self.assertEqual(core.hook("noop", ["b"])[0]["message"], "ran")

    def test_a_hook_cancelled_before_it_began_does_not_run(self):
        core = self.core("""
        ran = []
        @hook("rcpt")
        def rcpt(session):
            session.core.dns("a").result()
        @hook("noop")
        def noop(session):
            ran.append(session.id)
            return passed(" ".join(ran))
        """)
        core.send_hook("rcpt", ["a"], session="s1")
        call = core.receive()
        second = core.send_hook("noop", ["a"], session="s2")
        core.send({"kind": "cancel", "id": second, "reason": "disconnect"})
        core.send({"kind": "reply", "id": call["id"], "ok": {"status": "no_such_name"}})
        core.receive()
        self.assertEqual(core.receive()["results"][0]["message"], "cancelled: disconnect")
        self.assertEqual(core.hook("noop", ["a"], session="s3")[0]["message"], "s3")


if __name__ == "__main__":
    unittest.main()
