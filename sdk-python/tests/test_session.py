import unittest

import support
from support import PluginTest


class FieldsTest(PluginTest):
    def test_tls_is_there_once_it_is_in_use(self):
        core = self.core("""
        @hook("ehlo", fields=["tls_version", "tls_cipher", "tls_server_name", "tls_client_name"])
        def ehlo(session, host):
            return passed(repr([session.tls_version, session.tls_cipher, session.tls_server_name, session.tls_client_name]))
        """)
        entry = core.hook("ehlo", ["a"], session="s1", connection={}, args={"host": "client.example"})[0]
        self.assertEqual(entry["message"], "[None, None, None, None]")
        tls = {"tls_version": "TLSv1.3", "tls_cipher": "TLS_AES_256_GCM_SHA384", "tls_client_name": b"client.example"}
        entry = core.hook("ehlo", ["a"], session="s1", connection=tls, args={"host": "client.example"})[0]
        self.assertEqual(entry["message"], "['TLSv1.3', 'TLS_AES_256_GCM_SHA384', None, 'client.example']")

    def test_fields_are_typed(self):
        core = self.core("""
        @hook("rcpt", fields=["remote_ip", "remote_port", "relay_client", "karma", "immune", "sender", "recipients", "header", "auth_results"])
        def rcpt(session, address, parameters):
            return passed(repr([session.id, session.transaction, session.remote_ip, session.remote_port, session.relay_client, session.karma,
                                session.immune, session.sender, session.recipients, session.header, session.auth_results,
                                address.domain, parameters, session.deadline, session.resumed]))
        """)
        entry = core.hook(
            "rcpt", ["a"], session="s7", transaction=2, resumed=True,
            connection={"remote_ip": b"192.0.2.1", "remote_port": 25, "auth_results": [b"iprev=pass"]},
            transaction_fields={"sender": "a@b", "recipients": ["c@d", b"e@f"], "header": "X: \u00e9\r\n"},
            args={"address": b"bob@example.org", "parameters": {"NOTIFY": "NEVER", "X": None}},
        )[0]
        self.assertEqual(
            entry["message"],
            "['s7', 2, '192.0.2.1', 25, False, 0, None, Address('a@b'), [Address('c@d'), Address('e@f')], b'X: \\xc3\\xa9\\r\\n', ['iprev=pass'], "
            "'example.org', {'NOTIFY': 'NEVER', 'X': None}, 30.0, True]",
        )

    def test_parameters_stay_with_their_recipient(self):
        fields = ["recipients", "recipient_parameters"]
        core = self.core(f"""
        @hook("data_post", fields={fields})
        def data_post(session):
            session.remove_recipient("a@b")
            session.add_recipient("c@d")
        """, f"""
        @hook("data_post", fields={fields})
        def data_post(session):
            return passed(repr((session.recipients, session.recipient_parameters)))
        """)
        entry = core.hook(
            "data_post", ["a", "b"],
            transaction_fields={"recipients": ["a@b", "b@b"], "recipient_parameters": [{}, {"NOTIFY": b"NEVER"}]},
        )[1]
        self.assertEqual(entry["message"], "([Address('b@b'), Address('c@d')], [{'NOTIFY': 'NEVER'}, {}])")

    def test_a_field_that_was_not_asked_for_is_an_error_that_says_so(self):
        core = self.core("""
        @hook("noop")
        def noop(session):
            return passed(session.remote_ip)
        @hook("quit")
        def quit(session):
            return passed(session.notes["seen"])
        """)
        with self.stderr():
            field = core.hook("noop", ["a"], connection={"remote_ip": "192.0.2.1"})[0]
            note = core.hook("quit", ["a"], notes={"connection": {"seen": 1}})[0]
        self.assertIn('write @hook("noop", fields=["remote_ip"])', field["message"])
        self.assertIn('write @hook("quit", reads=["seen"])', note["message"])

    def test_arguments_that_are_absent_are_empty(self):
        core = self.core("""
        @hook("ehlo", "helo")
        def hello(host):
            return passed(repr(host))
        @hook("mail")
        def mail(parameters, address):
            return passed(repr([parameters, bool(address)]))
        """)
        self.assertEqual(core.hook("helo", ["a"])[0]["message"], "''")
        self.assertEqual(core.hook("mail", ["a"])[0]["message"], "[{}, False]")


class Memory(PluginTest):
    def test_attributes_last_for_the_connection_and_are_the_plugins_own(self):
        count = """
        @hook("noop")
        def noop(session):
            session.count = getattr(session, "count", 0) + 1
            return passed(str(session.count))
        """
        core = self.core(count, count)
        self.assertEqual([entry["message"] for entry in core.hook("noop", ["a"])], ["1"])
        self.assertEqual([entry["message"] for entry in core.hook("noop", ["a", "b"])], ["2", "1"])
        self.assertEqual(core.hook("noop", ["a"], session="other")[0]["message"], "1")
        core.send_event("disconnect", [])
        self.assertEqual(core.hook("noop", ["a"])[0]["message"], "1")


class Changes(PluginTest):
    def test_every_change_as_the_protocol_writes_it(self):
        core = self.core("""
        @hook("data_post")
        def data_post(session):
            session.notes["n"] = {"deep": [1, b"x"]}
            del session.transaction_notes["t"]
            session.add_header("X-A", "1")
            session.add_header("X-B", b"2", at="bottom")
            session.replace_header("X-C", "3", nth=2)
            session.remove_header("X-D")
            session.remove_header("X-D", 1)
            session.add_recipient(Address("a@b"))
            session.remove_recipient("c@d")
            session.set_sender("")
            session.add_karma(-2)
            session.set_relay_client()
            session.set_relay_client(True, "ours")
            session.set_immune("local")
            session.set_whitelisted("friend", scope="transaction")
            session.set_naughty(None)
            session.add_auth_result("iprev=pass")
            session.set_quarantine("odd")
            session.set_route("lmtp")
            session.set_route("list", Address("a@b"))
            session.set_route(None, "c@d")
            session.set_remote_host("h.example")
        """)
        self.assertEqual(core.hook("data_post", ["a"]), [{"plugin": "a", "changes": [
            {"op": "note", "scope": "connection", "name": "n", "value": {"deep": [1, b"x"]}},
            {"op": "note", "scope": "transaction", "name": "t", "value": None},
            {"op": "add_header", "name": "X-A", "value": "1", "at": "top"},
            {"op": "add_header", "name": "X-B", "value": b"2", "at": "bottom"},
            {"op": "replace_header", "name": "X-C", "value": "3", "nth": 2},
            {"op": "remove_header", "name": "X-D"},
            {"op": "remove_header", "name": "X-D", "nth": 1},
            {"op": "add_recipient", "address": "a@b"},
            {"op": "remove_recipient", "address": "c@d"},
            {"op": "set_sender", "address": ""},
            {"op": "karma", "add": -2},
            {"op": "relay_client", "value": True},
            {"op": "relay_client", "value": True, "reason": "ours"},
            {"op": "immune", "reason": "local"},
            {"op": "whitelisted", "reason": "friend", "scope": "transaction"},
            {"op": "naughty", "message": None},
            {"op": "auth_result", "text": "iprev=pass"},
            {"op": "quarantine", "reason": "odd"},
            {"op": "route", "route": "lmtp"},
            {"op": "route", "route": "list", "address": "a@b"},
            {"op": "route", "route": None, "address": "c@d"},
            {"op": "remote_host", "name": "h.example"},
        ]}])

    def test_addresses_of_a_connection(self):
        core = self.core("""
        @hook("connect", fields=["remote_ip", "remote_port", "local_port", "remote_info"])
        def connect(session):
            session.set_remote("192.0.2.7")
            session.set_remote(port=40000)
            session.set_local(port=26)
            session.set_remote_info("alice")
            return passed(f"{session.remote_ip} {session.remote_port} {session.local_port} {session.remote_info}")
        """)
        entry = core.hook("connect", ["a"])[0]
        self.assertEqual(entry["message"], "192.0.2.7 40000 26 alice")
        self.assertEqual(entry["changes"], [
            {"op": "remote", "ip": "192.0.2.7"},
            {"op": "remote", "port": 40000},
            {"op": "local", "port": 26},
            {"op": "remote_info", "info": "alice"},
        ])

    def test_what_cannot_travel_is_the_plugins_error_at_that_line(self):
        for statement, message in (
            ("session.notes['n'] = 1.5", 'TypeError: the note "n" cannot hold a float'),
            ("session.notes['n'] = {1: 2}", 'TypeError: the note "n" has a key that is no text: 1'),
            ("session.add_header('X-A', 'a\\r\\nBcc: b@c')", "ValueError: the value of X-A has a line break"),
            ("session.add_header('X A', 'a')", "ValueError: 'X A' is no name of a header field"),
            ("session.add_header('X-A', 'a' * 999)", "ValueError: the value of X-A has a line of more than 998 bytes"),
        ):
            with self.subTest(statement), self.stderr() as stderr:
                core = self.core(f"@hook('noop')\ndef noop(session):\n    {statement}\n")
                entry = core.hook("noop", ["a"])[0]
                self.assertEqual(entry["disposition"], "error")
                self.assertIn(message, entry["message"])
                self.assertNotIn("changes", entry)
                self.assertIn("Traceback", stderr.getvalue())

    def test_header_edits_are_seen_at_once(self):
        core = self.core("""
        @hook("data_post", fields=["header"])
        def data_post(session):
            session.replace_header("b", "new\\n folded", nth=2)
            session.remove_header("A", 1)
            session.replace_header("D", "last")
            session.add_header("First", "1")
            session.notes["header"] = session.header
        """)
        header = b"A: 1\r\nB: x\r\n\tfolded\r\nA: 2\r\nb: old\r\n  folded\r\nC: 3\r\n"
        changes = core.hook("data_post", ["a"], transaction_fields={"header": header})[0]["changes"]
        self.assertEqual(changes[-1]["value"], b"First: 1\r\nB: x\r\n\tfolded\r\nA: 2\r\nb: new\r\n folded\r\nC: 3\r\nD: last\r\n")


class Messages(PluginTest):
    MESSAGE = b"Subject: hello\r\n\r\n" + bytes(range(256)) * 1200

    PLUGIN = """
    @hook("data_post", fields=%s)
    def data_post(session):
        with session.message.open() as file:
            first, rest = file.readline(), file.read()
        parsed = session.message.parse()
        return passed(f"{first!r} {len(rest)} {session.message.read(16, 5)!r} {parsed['subject']}")
    """
    EXPECTED = "b'Subject: hello\\r\\n' 307202 b'\\r\\n\\x00\\x01\\x02' hello"

    def test_read_over_the_channel(self):
        core = self.core(self.PLUGIN % "[]")
        core.answers.message = self.MESSAGE
        self.assertEqual(core.hook("data_post", ["a"])[0]["message"], self.EXPECTED)

    def test_read_from_the_servers_file(self):
        core = self.core(self.PLUGIN % "['path']")
        path = self.folder + "/message"
        with open(path, "wb") as file:
            file.write(self.MESSAGE)
        self.assertEqual(core.hook("data_post", ["a"], transaction_fields={"path": path})[0]["message"], self.EXPECTED)


if __name__ == "__main__":
    unittest.main()
