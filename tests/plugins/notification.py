"""Reads a delivery status notification from standard input by Python's email package, and prints what it says, a field a line."""
import email
import email.policy
import sys

message = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
assert not message.defects, message.defects
assert message.get_content_type() == "multipart/report", message.get_content_type()
print("report-type:", message.get_param("report-type"))
print("auto-submitted:", message["Auto-Submitted"])
print("to:", message["To"])
text, status, original = message.iter_parts()
assert not any(part.defects for part in message.walk()), [part.defects for part in message.walk()]
print("parts:", text.get_content_type(), status.get_content_type(), original.get_content_type())
of_message, of_recipient = status.get_payload()
for block, names in ((of_message, ("Reporting-MTA", "Original-Envelope-Id")), (of_recipient, ("Original-Recipient", "Final-Recipient", "Action", "Status", "Diagnostic-Code"))):
    for name in names:
        if block[name] is not None:
            print(f"{name.lower()}:", block[name])
quoted = original.get_payload()
subject = quoted[0]["Subject"] if isinstance(quoted, list) else email.message_from_string(quoted)["Subject"]
print("subject:", subject)
