import os
import time
import unittest

from support import PluginTest

from gatepost import testing


class Departure(PluginTest):
    def test_a_coroutine_can_wait_for_it(self):
        core = self.core("""
        @hook("queue")
        async def queue(session):
            session.log("runs")
            await session.until_client_gone()
            await session.until_client_gone()
            if session.client_gone:
                return denysoft("the client is gone")
        """)
        number = core.send_hook("queue", ["a"])
        self.assertEqual(core.receive()["message"], "runs")
        core.send({"kind": "cancel", "id": number, "reason": "disconnect"})
        entry = core.receive()["results"][0]
        self.assertEqual((entry["verdict"], entry["message"]), ("denysoft", "the client is gone"))

    def test_it_stops_nobody(self):
        core = self.core("""
        @hook("queue")
        async def queue(session):
            before = session.client_gone
            values = await session.core.config("first")
            return ok(f"{before} {session.client_gone} {values}")
        """)
        number = core.send_hook("queue", ["a"])
        call = core.receive()
        core.send({"kind": "cancel", "id": number, "reason": "disconnect"})
        core.send({"kind": "reply", "id": call["id"], "ok": {"values": ["x"]}})
        self.assertEqual(core.receive()["results"][0]["message"], "False True ['x']")

    PLAIN = """
    @hook("queue")
    def queue(session):
        open(os.path.join(os.path.dirname(__file__), "begun"), "w").close()
        end = time.monotonic() + 20
        while not session.client_gone and time.monotonic() < end:
            time.sleep(0.001)
        return passed(str(session.client_gone))
    @hook("rcpt")
    def rcpt():
        return passed("in its turn")
    """
    LOOP = """
    @hook("noop")
    async def noop():
        pass
    """

    def test_a_plain_function_sees_it_when_it_looks(self):
        for source in (self.PLAIN, self.PLAIN + self.LOOP):
            core = self.core(source)
            number = core.send_hook("queue", ["a"])
            self.wait_for(os.path.join(self.folder, "begun"))
            other = core.send_hook("rcpt", ["a"], session="s2")
            core.send({"kind": "cancel", "id": number, "reason": "disconnect"})
            self.assertEqual(core.receive()["results"][0]["message"], "True")
            result = core.receive()
            self.assertEqual((result["id"], result["results"][0]["message"]), (other, "in its turn"))

    def wait_for(self, path):
        end = time.monotonic() + 20
        while not os.path.exists(path):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.001)
        os.unlink(path)

    def test_any_other_cancel_stops_it(self):
        for hook, reason in (("queue", "timeout"), ("data_post", "disconnect")):
            core = self.core(f"""
            @hook("{hook}")
            async def waits(session):
                session.log("runs")
                await session.until_client_gone()
            """)
            number = core.send_hook(hook, ["a"])
            self.assertEqual(core.receive()["message"], "runs")
            core.send({"kind": "cancel", "id": number, "reason": reason})
            self.assertEqual(core.receive()["results"][0]["message"], f"cancelled: {reason}")

    def test_a_hook_that_waits_for_its_turn_finds_it(self):
        core = self.core("""
        @hook("data_post")
        def data_post(session):
            session.core.config("x").result()
        @hook("queue")
        def queue(session):
            return passed(str(session._turn.departed))
        """)
        core.send_hook("data_post", ["a"], session="s1")
        call = core.receive()
        number = core.send_hook("queue", ["a"], session="s2")
        core.send({"kind": "cancel", "id": number, "reason": "disconnect"})
        core.send({"kind": "reply", "id": call["id"], "ok": {}})
        core.receive()
        self.assertEqual(core.receive()["results"][0]["message"], "True")

    def test_in_the_test_kit(self):
        path = self.file("""
        @hook("queue")
        def queue(session):
            return denysoft("the client is gone") if session.client_gone else ok("kept")
        """)
        with testing.load(path) as plugin:
            session = plugin.session(message=b"A: b\n\n")
            self.assertEqual(session.run("queue").verdict, "ok")
            session.client_gone = True
            self.assertEqual(session.run("queue").verdict, "denysoft")
            self.assertEqual(plugin.session(message=b"A: b\n\n").run("queue").verdict, "ok")


if __name__ == "__main__":
    unittest.main()
