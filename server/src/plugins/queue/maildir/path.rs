//! Where a recipient's Maildir is.

use gatepost_protocol::Address;

/// A path with places for parts of an address.
pub struct PathPattern(Vec<Part>);

enum Part {
    Literal(String),
    Domain,
    Local,
    Address,
}

impl PathPattern {
    /// Reads `/var/mail/{domain}/{local}`.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        if text.is_empty() {
            return Err("expected a path, such as \"/var/mail/{domain}/{local}\"".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, behind)) = rest.split_once('{') {
            parts.push(Part::Literal(literal.to_owned()));
            let (name, behind) = behind
                .split_once('}')
                .ok_or_else(|| format!("`{{` without its `}}` in `{text}`"))?;
            parts.push(match name {
                "domain" => Part::Domain,
                "local" => Part::Local,
                "address" => Part::Address,
                other => {
                    return Err(format!(
                        "unknown `{{{other}}}`; expected {{domain}}, {{local}} or {{address}}"
                    ));
                }
            });
            rest = behind;
        }
        parts.push(Part::Literal(rest.to_owned()));
        Ok(PathPattern(parts))
    }

    /// The path for a recipient; `None` where a part of the address cannot be a file's name. A recipient without a domain is one of ours.
    pub fn expand(&self, recipient: &Address, hostname: &str) -> Option<String> {
        let local = recipient.local_unquoted().to_lowercase();
        let domain = recipient.domain().unwrap_or(hostname).to_lowercase();
        let mut path = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => path.push_str(text),
                Part::Domain => path.push_str(safe(&domain)?),
                Part::Local => path.push_str(safe(&local)?),
                Part::Address => {
                    path.extend([safe(&local)?, "@", safe(&domain)?]);
                }
            }
        }
        Some(path)
    }
}

/// A client chose these letters: they name one file below its folder, and neither another folder nor a Maildir++ subfolder.
fn safe(name: &str) -> Option<&str> {
    let unsafe_name = name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']);
    (!unsafe_name).then_some(name)
}

/// Whether a path stays below the folder it is put behind.
pub fn is_below(path: &str) -> bool {
    use std::path::Component;
    let mut components = std::path::Path::new(path).components().peekable();
    components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(pattern: &str, address: &str) -> Option<String> {
        let address = Address::parse(address).unwrap();
        PathPattern::parse(pattern)
            .unwrap()
            .expand(&address, "MX.example.org")
    }

    #[test]
    fn parts_of_the_address() {
        for (pattern, address, path) in [
            (
                "/m/{domain}/{local}",
                "Bob@Example.ORG",
                "/m/example.org/bob",
            ),
            ("/m/{address}/x", "Bob@Example.ORG", "/m/bob@example.org/x"),
            (
                "/m/{domain}/{local}",
                "postmaster",
                "/m/mx.example.org/postmaster",
            ),
            ("/m/{local}", "\"a b\"@example.org", "/m/a b"),
            ("./mail", "bob@example.org", "./mail"),
        ] {
            assert_eq!(expand(pattern, address).as_deref(), Some(path));
        }
    }

    #[test]
    fn no_address_leads_out_of_the_folder() {
        for local in [
            "\"../x\"",
            "\"..\"",
            "\".hidden\"",
            "\"a/b\"",
            "\"/etc\"",
            "\"\"",
            "a/b",
        ] {
            for pattern in ["/m/{local}", "/m/{address}", "/m/{domain}/x-{local}"] {
                assert_eq!(
                    expand(pattern, &format!("{local}@example.org")),
                    None,
                    "{local}"
                );
            }
        }
    }

    #[test]
    fn patterns_are_checked() {
        for wrong in ["", "/m/{user}", "/m/{local"] {
            assert!(PathPattern::parse(wrong).is_err(), "{wrong}");
        }
        assert!(is_below(".Quarantine") && is_below("a/b"));
        for wrong in ["", "..", "a/../..", "/abs", "."] {
            assert!(!is_below(wrong), "{wrong}");
        }
    }
}
