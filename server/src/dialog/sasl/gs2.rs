//! The header that messages of SCRAM and OAUTHBEARER begin with (GS2, RFC 5801 §4, as RFC 5802 §7 writes it).

use super::{Failure, name};

/// What the client says of channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding<'a> {
    /// `n`: it cannot.
    Without,
    /// `y`: it could, and believes that we cannot.
    NotOffered,
    /// `p`: by this type.
    By(&'a str),
}

/// A header.
pub struct Header<'a> {
    pub binding: Binding<'a>,
    /// Whom they want to act as.
    pub authzid: Option<String>,
    /// The header as it came, with the comma behind it.
    pub text: &'a str,
}

/// Splits a message into its header and the rest.
pub fn split(message: &str) -> Result<(Header<'_>, &str), Failure> {
    let malformed = Failure::Malformed("no GS2 header");
    let mut parts = message.splitn(3, ',');
    let (Some(flag), Some(authzid), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed);
    };
    let binding = match flag {
        "n" => Binding::Without,
        "y" => Binding::NotOffered,
        _ => Binding::By(flag.strip_prefix("p=").ok_or(malformed)?),
    };
    let authzid = match authzid {
        "" => None,
        _ => Some(saslname(authzid.strip_prefix("a=").ok_or(malformed)?)?),
    };
    let header = Header {
        binding,
        authzid,
        text: &message[..message.len() - rest.len()],
    };
    Ok((header, rest))
}

/// A name in which `=2C` stands for a comma and `=3D` for an equals sign; any other `=` is a mistake (RFC 5802 §5.1).
pub fn saslname(encoded: &str) -> Result<String, Failure> {
    let mut parts = encoded.split('=');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match part.split_at_checked(2) {
            Some(("2C", rest)) => (',', rest),
            Some(("3D", rest)) => ('=', rest),
            _ => return Err(Failure::Malformed("a name with a lone `=`")),
        };
        decoded.push(sign);
        decoded.push_str(rest);
    }
    name(&decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_apart() {
        let (header, rest) = split("p=tls-exporter,a=a=2Cb=3D2C,n=user,r=x").unwrap();
        assert_eq!(header.binding, Binding::By("tls-exporter"));
        assert_eq!(header.authzid.as_deref(), Some("a,b=2C"));
        assert_eq!(header.text, "p=tls-exporter,a=a=2Cb=3D2C,");
        assert_eq!(rest, "n=user,r=x");
        let (header, rest) = split("y,,").unwrap();
        assert_eq!((header.binding, rest), (Binding::NotOffered, ""));
    }

    #[test]
    fn anything_else_is_malformed() {
        for message in [
            "",
            "n",
            "n,",
            "x,,",
            ",,",
            "n,b,",
            "n,a=,",
            "n,a=x=,",
            "n,a=x=2c,",
            "n,a==\u{e9},",
        ] {
            let split = split(message).map(|(header, _)| header.text);
            assert!(
                matches!(split, Err(Failure::Malformed(_))),
                "{message}: {split:?}"
            );
        }
    }
}
