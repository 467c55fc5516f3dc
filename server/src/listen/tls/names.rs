//! What stands in a certificate: names, and until when it is good.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The DNS names that a certificate is for, in lower case.
pub fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    parsed(certificate).map_or(Vec::new(), |certificate| {
        alternative(&certificate, |name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
    })
}

/// Whom a certificate names: a DNS name, else a mail address, else the common name.
pub fn holder(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = parsed(certificate)?;
    let names = alternative(&certificate, |name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let addresses = || {
        alternative(&certificate, |name| match name {
            GeneralName::RFC822Name(address) => Some(*address),
            _ => None,
        })
    };
    let common = || {
        let name = certificate.subject().iter_common_name().next()?;
        name.as_str().ok().map(str::to_owned)
    };
    names
        .into_iter()
        .next()
        .or_else(|| addresses().into_iter().next())
        .or_else(common)
}

/// The day after which a certificate is good no more, where that day is over.
pub fn expired(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = parsed(certificate)?;
    let until = certificate.validity().not_after;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    (until.timestamp() < i64::try_from(now.as_secs()).ok()?).then(|| until.to_string())
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate)
        .ok()
        .map(|(_, certificate)| certificate)
}

/// Some of the names in the extension subjectAltName (RFC 5280 §4.2.1.6).
fn alternative<'a>(
    certificate: &'a X509Certificate<'_>,
    pick: impl Fn(&'a GeneralName<'_>) -> Option<&'a str>,
) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.into_iter().flat_map(|it| &it.value.general_names);
    names
        .filter_map(pick)
        .map(str::to_ascii_lowercase)
        .collect()
}
