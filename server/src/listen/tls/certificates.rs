//! Our certificates: from the files' text to keys that sign, and which of them a client gets.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::names;

/// What is wrong with a certificate and its key.
pub enum Wrong {
    /// With the certificate's file.
    Cert(String),
    /// With the key's.
    Key(String),
}

/// Reads the certificates of a PEM file; there is one at least. `path` is for the error only.
pub fn read(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let path = path.display();
    let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("`{path}` holds no certificate in PEM"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("`{path}` is no good PEM: {error}")),
    }
}

/// Puts a certificate and its key together.
pub fn pair(
    (cert, cert_text): (&Path, &[u8]),
    (key, key_text): (&Path, &[u8]),
) -> Result<CertifiedKey, Wrong> {
    let certificates = read(cert, cert_text).map_err(Wrong::Cert)?;
    let (cert, key) = (cert.display(), key.display());
    let private = PrivateKeyDer::from_pem_slice(key_text).map_err(|_| {
        Wrong::Key(format!(
            "`{key}` holds no private key in PEM that can be read; one with a password cannot"
        ))
    })?;
    CertifiedKey::from_der(certificates, private, &super::provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Wrong::Key(format!(
            "`{key}` is not the key of the certificate in `{cert}`, which is the first one there"
        )),
        Error::InvalidCertificate(_) => Wrong::Cert(format!(
            "the certificate in `{cert}` cannot be read: {error}"
        )),
        _ => Wrong::Key(format!("the key in `{key}` cannot be used: {error}")),
    })
}

/// All our certificates.
#[derive(Debug)]
pub struct Certificates {
    usual: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Those for the names said, else for the names in them. The first of all is the usual one. `None` where there is none.
    pub fn new(all: Vec<(CertifiedKey, &[String])>) -> Option<Certificates> {
        let mut usual = None;
        let mut by_name = HashMap::new();
        for (pair, said) in all {
            let pair = Arc::new(pair);
            let names = match said {
                [] => pair.cert.first().map(names::dns_names).unwrap_or_default(),
                said => said.to_vec(),
            };
            for name in names {
                by_name.entry(name).or_insert_with(|| Arc::clone(&pair));
            }
            usual.get_or_insert(pair);
        }
        Some(Certificates {
            usual: usual?,
            by_name,
        })
    }
}

impl ResolvesServerCert for Certificates {
    /// For a name that nobody has the usual one: a client that wants another will say so, and most servers do not look.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| {
            // A wildcard stands for one label (RFC 9525 §6.3).
            let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
            self.by_name
                .get(name)
                .or_else(|| self.by_name.get(&wildcard()?))
        });
        Some(Arc::clone(found.unwrap_or(&self.usual)))
    }
}
