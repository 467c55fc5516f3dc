//! `[tls]`: certificates, and what is asked of clients. Whether the files are any good is for those who use them to say.

use std::path::PathBuf;

use gatepost_protocol::{Value, address};

use super::mistakes::Spans;
use super::reader::{Item, Keys, Reader};
use super::types::{CertificateFiles, ClientCert, TlsConfig, TlsVersion};

/// Reads the table; `None` where it is wrong, or not there.
pub(super) fn read(reader: &mut Reader, item: Option<&Item<'_>>) -> Option<TlsConfig> {
    let item = item?;
    let mut keys = reader.table(item)?;
    let spans = spans(reader, item, &keys);
    let pair = pair(reader, item, &mut keys);
    let mut certificates = Vec::new();
    let others = keys.get("certificate");
    let tables = others.map(|item| reader.tables("tls.certificate", item));
    for table in tables.into_iter().flatten() {
        certificates.push(certificate(reader, table));
    }
    let client_ca = path(reader, &mut keys, "client_ca");
    let words = ["off", "request", "require"];
    let client_cert = keys
        .get("client_cert")
        .and_then(|item| reader.word(item, &words, client_cert))
        .unwrap_or_default();
    let min_version = keys
        .get("min_version")
        .and_then(|item| reader.word(item, &["1.2", "1.3"], min_version))
        .unwrap_or_default();
    if let Some(span) = keys.key_span("client_cert")
        && client_cert != ClientCert::Off
        && keys.key_span("client_ca").is_none()
    {
        reader.mistake(
            span,
            "`client_ca` is missing: the file with the certificates of those who may vouch for clients",
        );
    }
    if let Some(span) = keys.key_span("client_ca")
        && client_cert == ClientCert::Off
    {
        reader.warning(
            span,
            "`client_ca` does nothing without `client_cert = \"request\"` or \"require\"",
        );
    }
    keys.finish(reader);
    let mut all = vec![CertificateFiles {
        names: Vec::new(),
        ..pair?
    }];
    for certificate in certificates {
        all.push(certificate?);
    }
    Some(TlsConfig {
        certificates: all,
        client_ca: client_ca.filter(|_| client_cert != ClientCert::Off),
        client_cert,
        min_version,
        location: reader.source.location(item.span().start),
        spans,
    })
}

/// An entry of `[[tls.certificate]]`.
fn certificate(reader: &mut Reader, item: &Item<'_>) -> Option<CertificateFiles> {
    let mut keys = reader.table(item)?;
    let pair = pair(reader, item, &mut keys);
    let mut names = Vec::new();
    let listed = keys.get("names").and_then(|item| reader.list(item));
    for (name, span) in listed.into_iter().flatten() {
        if address::is_domain(name.strip_prefix("*.").unwrap_or(name)) {
            names.push(name.to_ascii_lowercase());
        } else {
            let message = format!(
                "\"{name}\" is no host name; write one like \"mail.example.com\" or \"*.example.com\""
            );
            reader.mistake(span, message);
        }
    }
    keys.finish(reader);
    Some(CertificateFiles { names, ..pair? })
}

/// `cert` and `key`.
fn pair(reader: &mut Reader, table: &Item<'_>, keys: &mut Keys<'_>) -> Option<CertificateFiles> {
    let mut file = |key, what: &str| {
        if keys.key_span(key).is_none() {
            keys.get(key);
            let message = format!("`{key}` is missing: the file with {what}, in PEM");
            reader.another(table.span(), message);
            return None;
        }
        path(reader, keys, key)
    };
    let cert = file("cert", "the certificate and those of its issuers");
    let key = file("key", "the certificate's private key");
    Some(CertificateFiles {
        names: Vec::new(),
        cert: cert?,
        key: key?,
    })
}

fn path(reader: &mut Reader, keys: &mut Keys<'_>, key: &'static str) -> Option<PathBuf> {
    let item = keys.get(key)?;
    reader.some_text(item).map(PathBuf::from)
}

/// Where everything in the table stands, for mistakes in the files.
fn spans(reader: &mut Reader, item: &Item<'_>, keys: &Keys<'_>) -> Spans {
    let places = keys.rest().map(|(key, span, item)| {
        let (_, span) = reader.setting(span, item);
        (key.to_owned(), span)
    });
    let settings = places.collect();
    Spans {
        uniform: Default::default(),
        source: Some(reader.source.clone()),
        header: item.span(),
        settings,
    }
}

fn client_cert(value: &Value) -> Option<ClientCert> {
    match value.as_text()? {
        "off" => Some(ClientCert::Off),
        "request" => Some(ClientCert::Request),
        "require" => Some(ClientCert::Require),
        _ => None,
    }
}

fn min_version(value: &Value) -> Option<TlsVersion> {
    match value.as_text()? {
        "1.2" => Some(TlsVersion::V1_2),
        "1.3" => Some(TlsVersion::V1_3),
        _ => None,
    }
}
