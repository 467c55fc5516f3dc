import unittest
from unittest import mock

import support
from support import PluginTest

WAITS = """
gates = {}
@hook("rcpt")
async def rcpt(session, address):
    gate = gates.setdefault(session.id, asyncio.Event())
    session.log("waits")
    await gate.wait()
    session.notes["seen"] = 1
    return passed("let through")
@hook("noop")
def noop(session):
    for gate in gates.values():
        gate.set()
    return passed("opened " + " ".join(gates))
"""


class Coroutines(PluginTest):
    def test_many_sessions_wait_side_by_side(self):
        core = self.core(WAITS)
        waiting = [core.send_hook("rcpt", ["a"], session=name) for name in ("s1", "s2", "s3")]
        self.assertEqual([core.receive()["message"] for _ in waiting], ["waits"] * 3)
        self.assertEqual(core.hook("noop", ["a"], session="s4")[0]["message"], "opened s1 s2 s3")
        results = [core.receive() for _ in waiting]
        self.assertEqual([result["id"] for result in results], waiting)
        self.assertEqual(results[0]["results"][0]["message"], "let through")
        self.assertEqual(len(results[0]["results"][0]["changes"]), 1)

    def test_messages_of_one_session_stay_in_order(self):
        core = self.core("""
        order = []
        @hook("ok")
        async def ok_(session, plugin):
            await asyncio.sleep(0.01)
            order.append(plugin)
        @hook("noop")
        def noop():
            return passed(" ".join(order))
        """)
        for name in ("x", "y"):
            core.send_event("ok", ["a"], args={"plugin": name})
        self.assertEqual(core.hook("noop", ["a"])[0]["message"], "x y")

    def test_plain_functions_and_coroutines_share_a_segment(self):
        plain = "@hook('rcpt')\ndef rcpt(session):\n    session.add_karma(1)\n    return passed('plain')\n"
        coroutine = "@hook('rcpt', fields=['karma'])\nasync def rcpt(session):\n    await asyncio.sleep(0)\n    return passed(f'karma {session.karma}')\n"
        stops = "@hook('rcpt')\nasync def rcpt():\n    return deny('no')\n"
        core = self.core(plain, coroutine, plain, stops, plain)
        entries = core.hook("rcpt", ["a", "b", "c", "d", "e"])
        self.assertEqual([entry["message"] for entry in entries], ["plain", "karma 1", "plain", "no"])

    def test_an_exception_is_the_plugins_error(self):
        core = self.core("@hook('rcpt')\nasync def rcpt():\n    await asyncio.sleep(0)\n    raise KeyError('x')\n")
        with self.stderr() as stderr:
            self.assertEqual(core.hook("rcpt", ["a"])[0]["message"], "KeyError: 'x'")
        self.assertIn("in rcpt", stderr.getvalue())

    SLEEPS = """
    ended = []
    @hook("rcpt")
    async def rcpt(session):
        session.log("runs")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(session.id)
    @hook("noop")
    def noop():
        return passed(" ".join(ended))
    """
    CANCELLED = [{"plugin": "a", "disposition": "error", "message": "cancelled: timeout"}]

    def test_cancel_stops_it_and_the_result_is_sent(self):
        core = self.core(self.SLEEPS)
        number = core.send_hook("rcpt", ["a"])
        self.assertEqual(core.receive()["kind"], "log")
        core.send({"kind": "cancel", "id": number, "reason": "timeout"})
        self.assertEqual(core.receive(), {"kind": "result", "id": number, "results": self.CANCELLED})
        self.assertEqual(core.hook("noop", ["a"])[0]["message"], "s1")

    def test_cancelled_behind_another_of_its_session_it_does_not_run(self):
        core = self.core(self.SLEEPS)
        first = core.send_hook("rcpt", ["a"])
        second = core.send_hook("rcpt", ["a"])
        self.assertEqual(core.receive()["kind"], "log")
        for number in (second, first):
            core.send({"kind": "cancel", "id": number, "reason": "timeout"})
        for number in (first, second):
            self.assertEqual(core.receive(), {"kind": "result", "id": number, "results": self.CANCELLED})

    def test_what_takes_too_long_after_the_end_is_cancelled_without_a_word(self):
        core = self.core(self.SLEEPS)
        core.send_hook("rcpt", ["a"])
        self.assertEqual(core.receive()["kind"], "log")
        with mock.patch("gatepost.runner._GRACE", 0.02), self.stderr() as stderr:
            core.close()
        self.assertFalse(core._thread.is_alive())
        self.assertEqual(stderr.getvalue(), "")

    def test_what_runs_is_finished_after_the_end_of_the_channel(self):
        path = self.folder + "/finished"
        core = self.core(f"""
        @hook("queue")
        async def queue(session):
            session.log("runs")
            await asyncio.sleep(0.05)
            open({path!r}, "w").close()
        """)
        core.send_hook("queue", ["a"])
        self.assertEqual(core.receive()["kind"], "log")
        core.close()
        open(path).close()


if __name__ == "__main__":
    unittest.main()
