//! Trace headers: what we write above a message that came to us (RFC 5321 §4.4, RFC 8601).

use std::fmt::Write;
use std::net::IpAddr;
use std::time::SystemTime;

use gatepost_protocol::{HeaderBlock, Session};

use super::date;

/// More Received headers than this are a loop (RFC 5321 §6.3).
pub const MAX_HOPS: usize = 100;

/// Whether the message came through so many servers that it must be going in circles.
pub fn loops(header: &HeaderBlock) -> bool {
    header.all("Received").count() > MAX_HOPS
}

/// The Received header of the transaction at hand: the whole field, folded, without its last line end.
pub fn received(session: &Session, hostname: &str, time: SystemTime) -> String {
    let (connection, transaction) = (&session.connection, &session.transaction);
    let mut field = "Received: from ".to_owned();
    field.push_str(connection.hello_host.as_deref().unwrap_or("unknown"));
    if let Some(remote) = connection.remote {
        field.push_str(" (");
        if let Some(name) = &connection.remote_host {
            field.push_str(name);
            field.push(' ');
        }
        field.push_str(&literal(remote.ip()));
        field.push(')');
    }
    let with = protocol(
        connection.hello.as_deref(),
        connection.tls.is_some(),
        connection.authenticated.is_some(),
        transaction.is_smtputf8(),
    );
    let number = transaction.number;
    // Writing to a String cannot fail.
    let _ = write!(
        field,
        "\r\n\tby {hostname} (Gatepost) with {with} id {}.{number}",
        session.id
    );
    if let Some(tls) = &connection.tls {
        let _ = write!(
            field,
            "\r\n\t(version={} cipher={})",
            tls.version, tls.cipher
        );
    }
    // With more than one, each would learn of the others (RFC 5321 §7.2).
    if let [recipient] = &transaction.recipients[..] {
        let _ = write!(field, "\r\n\tfor {recipient}");
    }
    let _ = write!(field, ";\r\n\t{}", date::rfc5322(time));
    field
}

/// The protocol's name after what was used of it: RFC 3848, and RFC 6531 §4.3 where the client said SMTPUTF8.
fn protocol(hello: Option<&str>, tls: bool, authenticated: bool, utf8: bool) -> String {
    let base = match (hello, utf8) {
        (Some("EHLO"), false) => "ESMTP",
        (Some("EHLO"), true) => "UTF8SMTP",
        (Some("LHLO"), false) => "LMTP",
        (Some("LHLO"), true) => "UTF8LMTP",
        _ => return "SMTP".to_owned(),
    };
    let secure = if tls { "S" } else { "" };
    let authenticated = if authenticated { "A" } else { "" };
    format!("{base}{secure}{authenticated}")
}

/// An address as in `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
pub fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

/// Puts the trace headers above a message: one Authentication-Results of ours, and Received on top. Authentication-Results that came with
/// the message are renamed: nobody behind us can tell a forged one from ours otherwise (RFC 8601 §5).
///
/// `default` is what [`received`] gave, `instead` what a plugin wants in its place: lines, with or without the field's name. Where
/// these make no header, the default is taken, and the error says why.
pub fn add(
    header: &mut HeaderBlock,
    hostname: &str,
    auth_results: &[String],
    default: &str,
    instead: &[String],
) -> Result<(), gatepost_protocol::header::HeaderError> {
    header.rename("Authentication-Results", "Original-Authentication-Results");
    let value = results(hostname, auth_results);
    header.add("Authentication-Results", value.as_bytes(), true)?;
    if !instead.is_empty() {
        let lines: Vec<&str> = instead
            .iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .collect();
        let replaced = header.add("Received", value_of(&lines.join("\r\n\t")).as_bytes(), true);
        if replaced.is_ok() {
            return Ok(());
        }
        header.add("Received", value_of(default).as_bytes(), true)?;
        return replaced;
    }
    header.add("Received", value_of(default).as_bytes(), true)
}

/// Brings the Authentication-Results that [`add`] wrote up to what was found since. One that a plugin has changed stays as it is.
pub fn add_results(header: &mut HeaderBlock, hostname: &str, before: &[String], now: &[String]) {
    const NAME: &str = "Authentication-Results";
    let ours = header.first(NAME) == Some(results(hostname, before).as_bytes());
    if ours && before != now {
        // What would make no field was refused when a plugin stored it.
        let _ = header.replace(NAME, results(hostname, now).as_bytes(), 1);
    }
}

/// The value of Authentication-Results (RFC 8601 §2.2).
fn results(hostname: &str, auth_results: &[String]) -> String {
    let mut results = auth_results
        .iter()
        .filter(|text| !text.trim().is_empty())
        .peekable();
    let mut value = hostname.to_owned();
    if results.peek().is_none() {
        value.push_str("; none");
    }
    for result in results {
        value.push_str(";\r\n\t");
        value.push_str(result.trim());
    }
    value
}

fn value_of(field: &str) -> &str {
    match field.split_at_checked("Received:".len()) {
        Some((name, value)) if name.eq_ignore_ascii_case("Received:") => value,
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use gatepost_protocol::Address;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn names_of_the_protocol() {
        for (hello, tls, authenticated, utf8, name) in [
            ("HELO", true, true, false, "SMTP"),
            ("EHLO", false, false, false, "ESMTP"),
            ("EHLO", true, false, false, "ESMTPS"),
            ("EHLO", false, true, false, "ESMTPA"),
            ("EHLO", true, true, false, "ESMTPSA"),
            ("EHLO", false, false, true, "UTF8SMTP"),
            ("EHLO", true, true, true, "UTF8SMTPSA"),
            ("LHLO", false, false, false, "LMTP"),
            ("LHLO", true, true, false, "LMTPSA"),
            ("LHLO", true, false, true, "UTF8LMTPS"),
        ] {
            assert_eq!(protocol(Some(hello), tls, authenticated, utf8), name);
        }
    }

    fn session() -> Session {
        let mut session = Session {
            id: "3f9a1c".into(),
            ..Session::default()
        };
        session.connection.remote = Some("192.0.2.1:1234".parse().unwrap());
        session.connection.hello = Some("EHLO".into());
        session.connection.hello_host = Some("client.example".into());
        session.transaction.number = 2;
        session.transaction.recipients = vec![Address::parse("bob@example.org").unwrap()];
        session
    }

    fn at(session: &Session) -> String {
        received(
            session,
            "mx.example.org",
            UNIX_EPOCH + Duration::from_secs(1_795_342_272),
        )
    }

    #[test]
    fn received_says_from_by_with_id_for_and_when() {
        let mut session = session();
        assert_eq!(
            at(&session),
            "Received: from client.example ([192.0.2.1])\r\n\tby mx.example.org (Gatepost) with ESMTP id 3f9a1c.2\r\n\
             \tfor <bob@example.org>;\r\n\tSun, 22 Nov 2026 10:11:12 +0000"
        );
        session.connection.remote_host = Some("host.client.example".into());
        session.connection.remote = Some("[2001:db8::1]:1".parse().unwrap());
        session.connection.hello = Some("HELO".into());
        session
            .transaction
            .recipients
            .push(Address::parse("eve@example.org").unwrap());
        let text = at(&session);
        assert!(
            text.contains("(host.client.example [IPv6:2001:db8::1])"),
            "{text}"
        );
        assert!(text.contains("with SMTP id 3f9a1c.2;\r\n"), "{text}");
        assert!(!text.contains("for"), "{text}");
    }

    #[test]
    fn the_protocol_is_named_after_what_was_used_of_it() {
        let tls = gatepost_protocol::session::Tls {
            version: "TLSv1.3".into(),
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            ..Default::default()
        };
        for (hello, encrypted, user, expected) in [
            ("HELO", false, false, "SMTP"),
            ("HELO", true, false, "SMTP"),
            ("EHLO", false, false, "ESMTP"),
            ("EHLO", true, false, "ESMTPS"),
            ("EHLO", false, true, "ESMTPA"),
            ("EHLO", true, true, "ESMTPSA"),
            ("LHLO", false, false, "LMTP"),
            ("LHLO", true, true, "LMTPSA"),
        ] {
            let mut session = session();
            session.connection.hello = Some(hello.into());
            session.connection.tls = encrypted.then(|| Box::new(tls.clone()));
            session.connection.authenticated = user.then(|| "bob".to_owned());
            let text = at(&session);
            let with = format!("(Gatepost) with {expected} id 3f9a1c.2\r\n");
            assert!(text.contains(&with), "{text}");
            let comment =
                "id 3f9a1c.2\r\n\t(version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384)\r\n\tfor";
            assert_eq!(text.contains(comment), encrypted, "{text}");
        }
    }

    fn block() -> HeaderBlock {
        HeaderBlock::parse(Bytes::from_static(
            b"authentication-results: mx.example.org; spf=pass\r\nFrom: a@b\r\n",
        ))
    }

    #[test]
    fn our_results_stand_above_and_forged_ones_are_renamed() {
        let mut header = block();
        let results = [
            "iprev=pass policy.iprev=192.0.2.1".to_owned(),
            "spf=fail".to_owned(),
        ];
        add(
            &mut header,
            "mx.example.org",
            &results,
            "Received: from x",
            &[],
        )
        .unwrap();
        assert_eq!(
            header.to_bytes(),
            "Received: from x\r\nAuthentication-Results: mx.example.org;\r\n\tiprev=pass policy.iprev=192.0.2.1;\r\n\tspf=fail\r\n\
             Original-Authentication-Results: mx.example.org; spf=pass\r\nFrom: a@b\r\n"
        );
        let found = [&results[..], &["dkim=pass".to_owned()]].concat();
        add_results(&mut header, "mx.example.org", &results, &found);
        let now =
            "mx.example.org;\r\n\tiprev=pass policy.iprev=192.0.2.1;\r\n\tspf=fail;\r\n\tdkim=pass";
        let of = |header: &HeaderBlock| header.first("Authentication-Results").map(<[u8]>::to_vec);
        assert_eq!(of(&header), Some(now.into()));
        header
            .replace("Authentication-Results", b"mx.example.org; none", 1)
            .unwrap();
        add_results(&mut header, "mx.example.org", &found, &results);
        assert_eq!(of(&header), Some("mx.example.org; none".into()));
        let mut header = HeaderBlock::default();
        add(&mut header, "mx.example.org", &[], "Received: from x", &[]).unwrap();
        assert_eq!(
            header.first("Authentication-Results"),
            Some(&b"mx.example.org; none"[..])
        );
    }

    #[test]
    fn a_plugin_may_write_received_but_nothing_else() {
        for lines in [vec!["Received: by me", "for you"], vec!["by me\nfor you"]] {
            let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            let mut header = block();
            add(&mut header, "mx", &[], "Received: default", &lines).unwrap();
            assert_eq!(header.first("Received"), Some(&b"by me\r\n\tfor you"[..]));
        }
        let mut header = block();
        assert!(
            add(
                &mut header,
                "mx",
                &[],
                "Received: default",
                &["a\0b".to_owned()]
            )
            .is_err()
        );
        assert_eq!(header.first("Received"), Some(&b"default"[..]));
    }

    #[test]
    fn a_loop_is_more_than_a_hundred_hops() {
        let hops = |count: usize| HeaderBlock::parse("Received: x\r\n".repeat(count).into());
        assert!(!loops(&hops(100)));
        assert!(loops(&hops(101)));
    }
}
