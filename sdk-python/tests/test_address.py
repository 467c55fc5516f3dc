import unittest

import support
from gatepost import Address


class Parts(unittest.TestCase):
    def test_local_part_and_domain(self):
        for text, local, domain in (
            ("bob@example.org", "bob", "example.org"),
            ('"a b"@example.org', "a b", "example.org"),
            (r'"a\"b@c"@Example.org', 'a"b@c', "Example.org"),
            ("postmaster", "postmaster", ""),
            ("bob@[192.0.2.1]", "bob", "[192.0.2.1]"),
            ("", "", ""),
        ):
            address = Address(text)
            self.assertEqual((address.local, address.domain, str(address)), (local, domain, text))

    def test_the_null_sender_is_false(self):
        self.assertFalse(Address(""))
        self.assertTrue(Address("postmaster"))

    def test_of_quotes_where_it_has_to(self):
        self.assertEqual(str(Address.of("bob", "example.org")), "bob@example.org")
        self.assertEqual(str(Address.of('a "b"', "example.org")), r'"a \"b\""@example.org')
        self.assertEqual(str(Address.of("a..b", "example.org")), '"a..b"@example.org')
        self.assertEqual(str(Address.of("postmaster", "")), "postmaster")


class Comparison(unittest.TestCase):
    def test_the_domain_has_no_case_and_the_local_part_has(self):
        self.assertEqual(Address("bob@EXAMPLE.org"), Address("bob@example.ORG"))
        self.assertNotEqual(Address("Bob@example.org"), Address("bob@example.org"))
        self.assertEqual(hash(Address("bob@EXAMPLE.org")), hash(Address("bob@example.ORG")))

    def test_quotes_that_need_not_be_make_no_difference(self):
        self.assertEqual(Address('"bob"@example.org'), Address("bob@example.org"))

    def test_text_compares_too(self):
        self.assertIn(Address("bob@Example.org"), ["alice@example.org", "bob@example.org"])
        self.assertNotEqual(Address("bob@example.org"), 7)


if __name__ == "__main__":
    unittest.main()
