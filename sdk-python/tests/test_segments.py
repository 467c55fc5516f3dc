import unittest

import support
from support import CODECS, PluginTest
import gatepost

SAYS = """
@hook("rcpt")
def rcpt():
    return %s
"""


class Results(PluginTest):
    def test_what_a_function_returns_as_the_protocol_writes_it(self):
        for code, entry in (
            ("None", {}),
            ("passed()", {"disposition": "pass"}),
            ("passed('fine')", {"disposition": "pass", "message": "fine"}),
            ("skip('no')", {"disposition": "skip", "message": "no"}),
            ("error('down')", {"disposition": "error", "message": "down"}),
            ("fail('no', code=553, enhanced='5.1.1', reply='one\\ntwo')", {"disposition": "fail", "message": "no", "code": 553, "enhanced": "5.1.1", "reply": ["one", "two"]}),
            ("fail('no', verdict='declined')", {"disposition": "fail", "message": "no", "verdict": "declined"}),
            ("declined()", {"verdict": "declined"}),
            ("deny('no')", {"verdict": "deny", "message": "no"}),
            ("denysoft_disconnect('no', disposition='pass')", {"verdict": "denysoft_disconnect", "disposition": "pass", "message": "no"}),
            ("ok(values=['a', 'b'])", {"verdict": "ok", "values": ["a", "b"]}),
            ("done(reply=['x'])", {"verdict": "done", "reply": ["x"]}),
            ("quarantine('spam')", {"verdict": "quarantine", "message": "spam"}),
            ("discard()", {"verdict": "discard"}),
            ("score(2.5, 'odd')", {
                "disposition": "fail", "message": "odd", "verdict": "declined", "changes": [{"op": "score", "points": 2500, "reason": "odd"}],
            }),
            ("score(-0.1)", {"disposition": "pass", "message": "", "changes": [{"op": "score", "points": -100, "reason": ""}]}),
            ("ok().for_recipient('a@b', hold('bcc'))", {"verdict": "ok", "recipients": [{"address": "a@b", "verdict": "hold", "message": "bcc"}]}),
            ("passed('most').for_recipient('a@b', fail('full')).for_recipient(Address('c@d'), denysoft(code=452, enhanced='4.2.2', reply='x'))", {
                "disposition": "pass", "message": "most", "recipients": [
                    {"address": "a@b", "disposition": "fail", "message": "full"},
                    {"address": "c@d", "verdict": "denysoft", "code": 452, "enhanced": "4.2.2", "reply": ["x"]},
                ],
            }),
        ):
            for codec in CODECS:
                with self.subTest(code, codec=codec.name):
                    core = self.core(SAYS % code, codec=codec)
                    # Twice, for the second may come out of a cache.
                    for _ in range(2):
                        self.assertEqual(core.hook("rcpt", ["a"]), [{"plugin": "a", **entry}])

    def test_points_are_seen_by_the_next_plugin(self):
        gives = "@hook('rcpt')\ndef rcpt(session):\n    session.add_score(0.25, 'first')\n    return score(-2, 'then')\n"
        sees = "@hook('rcpt', fields=['score'])\ndef rcpt(session):\n    return passed(str(session.score))\n"
        entries = self.core(gives, sees).hook("rcpt", ["a", "b"], connection={"score": 4000})
        self.assertEqual([change["points"] for change in entries[0]["changes"]], [250, -2000])
        self.assertEqual(entries[1]["message"], "2.25")

    def test_an_answer_given_before_comes_with_its_changes_when_it_has_some(self):
        core = self.core("""
        @hook("rcpt")
        def rcpt(session, address):
            if address:
                session.add_karma(1)
            return passed("same")
        """)
        same = {"plugin": "a", "disposition": "pass", "message": "same"}
        self.assertEqual(core.hook("rcpt", ["a"]), [same])
        self.assertEqual(core.hook("rcpt", ["a"], args={"address": "a@b"}), [{**same, "changes": [{"op": "karma", "add": 1}]}])
        self.assertEqual(core.hook("rcpt", ["a"]), [same])

    def test_plugins_run_in_order_until_one_decides(self):
        plugins = [SAYS % code for code in ("skip('a')", "None", "fail('c', verdict='declined')", "declined('d')", "deny('e')", "passed('f')")]
        core = self.core(*plugins)
        names = ["a", "b", "c", "d", "e", "f"]
        self.assertEqual([entry["plugin"] for entry in core.hook("rcpt", names)], ["a", "b", "c", "d", "e"])
        self.assertEqual([entry["plugin"] for entry in core.hook("rcpt", ["f", "a"])], ["f", "a"])

    def test_outcomes_for_single_recipients_end_the_request(self):
        core = self.core(SAYS % "passed('a').for_recipient('a@b', passed())", SAYS % "passed('b')")
        self.assertEqual([entry["plugin"] for entry in core.hook("rcpt", ["a", "b"])], ["a"])

    def test_an_outcome_for_a_recipient_is_a_finding_or_a_verdict(self):
        for code in ("ok(values=['x'])", "defer('rcpt', print)", "passed().for_recipient('a@b', passed())"):
            with self.assertRaisesRegex(ValueError, "an outcome for a recipient has no values"):
                eval("passed().for_recipient('a@b', " + code + ")", vars(gatepost))
        with self.assertRaisesRegex(ValueError, "what is deferred is deferred for all"):
            gatepost.defer("data_post", print).for_recipient("a@b", gatepost.passed())

    def test_what_the_policy_is_to_judge_ends_the_request(self):
        core = self.core(SAYS % "fail('a')", SAYS % "error('b')", SAYS % "passed('c')")
        for names, ran in ((["a", "b", "c"], ["a"]), (["b", "c"], ["b"]), (["c"], ["c"])):
            self.assertEqual([entry["plugin"] for entry in core.hook("rcpt", names)], ran)

    def test_a_plugin_sees_what_the_one_before_changed(self):
        core = self.core(
            """
            @hook("rcpt")
            def rcpt(session):
                session.notes["n"] = 1
                session.add_karma(5)
                session.add_recipient("x@y")
                session.set_immune(None)
                session.set_immune("this once", scope="transaction")
                session.set_whitelisted("friend")
            """,
            """
            @hook("rcpt", fields=["karma", "recipients", "immune", "whitelisted"], reads=["n"])
            def rcpt(session):
                return passed(repr([session.notes.get("n"), session.karma, session.recipients, session.immune, session.whitelisted]))
            """,
        )
        entries = core.hook("rcpt", ["a", "b"], connection={"karma": -2, "immune": "why"}, transaction_fields={"recipients": ["v@w"]})
        self.assertEqual(entries[1]["message"], "[1, 3, [Address('v@w'), Address('x@y')], 'this once', 'friend']")
        self.assertNotIn("changes", entries[1])

    def test_names_that_have_no_function_there(self):
        core = self.core(SAYS % "passed()", "@hook('noop')\ndef noop(): pass")
        self.assertEqual(core.hook("rcpt", ["b", "a"]), [{"plugin": "b"}, {"plugin": "a", "disposition": "pass"}])
        entry = core.hook("rcpt", ["zz"])[0]
        self.assertEqual(entry, {"plugin": "zz", "disposition": "error", "message": 'this process has no plugin "zz"'})

    def test_names_may_arrive_as_bytes(self):
        core = self.core(SAYS % "passed()")
        core.send({"kind": b"hook", "id": 5, "hook": b"rcpt", "plugins": [b"a"], "session": b"s1"})
        self.assertEqual(core.receive()["results"], [{"plugin": "a", "disposition": "pass"}])


class Mistakes(PluginTest):
    def test_an_exception_is_the_plugins_error_and_the_process_lives(self):
        core = self.core(
            """
            @hook("rcpt")
            def rcpt(session):
                session.add_karma(1)
                raise ValueError("first line\\nsecond line")
            @hook("noop")
            def noop():
                sys.exit(3)
            """,
            SAYS % "passed()",
        )
        with self.stderr() as stderr:
            entries = core.hook("rcpt", ["a"])
            self.assertEqual(core.hook("noop", ["a"])[0]["message"], "SystemExit: 3")
        self.assertEqual(entries[0]["disposition"], "error")
        self.assertEqual(entries[0]["message"], "ValueError: first line")
        self.assertEqual(core.hook("rcpt", ["b"])[0]["disposition"], "pass")
        self.assertIn('raise ValueError("first line', stderr.getvalue())

    def test_a_wrong_return_value(self):
        core = self.core(SAYS % "'text'")
        self.assertEqual(core.hook("rcpt", ["a"])[0]["message"], "rcpt() returned str; a hook returns fail(), passed(), skip(), ... or None")

    def test_a_result_that_does_not_fit_a_frame(self):
        core = self.core(SAYS % "passed('x' * 600000)", SAYS % "fail('no', code=1.5)")
        self.assertEqual(core.hook("rcpt", ["a"])[0]["disposition"], "error")

    def test_a_result_that_cannot_travel(self):
        for codec in CODECS:
            core = self.core(SAYS % "fail('no', code=object())", codec=codec)
            self.assertEqual(core.hook("rcpt", ["a"])[0]["disposition"], "error")

    def test_fatal_ends_the_process_after_the_result(self):
        core = self.core("@hook('noop')\ndef noop():\n    raise Fatal('lost the database')")
        with self.stderr():
            core.send_hook("noop", ["a"])
            self.assertEqual(core.receive()["results"][0]["message"], "Fatal: lost the database")
            self.assertEqual(core.receive(), {"kind": "error", "message": "lost the database"})
            core.close()
        self.assertEqual(str(core.failure), "lost the database")


class Events(PluginTest):
    def test_an_event_gets_no_answer(self):
        core = self.core("""
        seen = []
        @hook("deny", "ok")
        def verdict(session, hook, plugin, message):
            seen.append((session.id, plugin, hook, message))
        @hook("rcpt", observe=True)
        def rcpt(address):
            seen.append(str(address))
            raise ValueError
        @hook("noop")
        def noop():
            return passed(repr(seen))
        """)
        self.assertEqual([hook.get("mode") for hook in core.ready["plugins"][0]["hooks"]], ["observe", "observe", "observe", None])
        core.send_event("deny", ["a"], args={"plugin": "p", "hook": "rcpt", "verdict": "deny", "message": "m"})
        with self.stderr():
            core.send_event("rcpt", ["a"], args={"address": "a@b"})
            self.assertEqual(core.hook("noop", ["a"])[0]["message"], "[('s1', 'p', 'rcpt', 'm'), 'a@b']")

    def test_a_long_segment_that_only_fits_in_parts(self):
        core = self.core(*[SAYS % "passed('x' * 400000)"] * 3)
        dispositions = [entry["disposition"] for entry in core.hook("rcpt", ["a", "b", "c"])]
        self.assertEqual(sorted(dispositions), ["error", "pass", "pass"])

    def test_unknown_kinds_and_hooks_are_ignored(self):
        core = self.core(SAYS % "passed()")
        core.send({"kind": "weather", "text": "rain"})
        core.send_event("eclipse", ["a"])
        self.assertEqual(core.hook("rcpt", ["a"])[0]["disposition"], "pass")


class Ready(PluginTest):
    def test_what_a_plugin_declares(self):
        core = self.core("""
        policy(reject="naughty", on_error="skip", immune=False)
        @hook("rcpt", fields=["sender", "remote_ip"], reads=["*"], timeout=2.5)
        def rcpt(): pass
        """)
        self.assertEqual(core.ready, {"kind": "ready", "concurrency": 64, "plugins": [{
            "name": "a",
            "hooks": [{"hook": "rcpt", "fields": ["remote_ip", "sender"], "reads": ["*"], "timeout_ms": 2500}],
            "settings": [],
            "policy": {"reject": "naughty", "on_error": "skip", "immune": False},
        }]})


if __name__ == "__main__":
    unittest.main()
