//! Certificates of clients.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::names;

/// Verifies clients that show a certificate; those that show none are let in too.
pub fn verifier(
    issuers: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for issuer in issuers {
        roots.add(issuer).map_err(|error| error.to_string())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| error.to_string())
}

/// Whom the client's certificate names, if it is good.
pub fn verified_name(
    verifier: &dyn ClientCertVerifier,
    certificates: &[CertificateDer<'_>],
) -> Option<String> {
    let (own, issuers) = certificates.split_first()?;
    verifier
        .verify_client_cert(own, issuers, UnixTime::now())
        .ok()?;
    names::holder(own)
}

/// Asks for certificates and makes of each handshake what the operator wants.
#[derive(Debug)]
pub struct Asks {
    /// Knows whom to trust.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Nobody comes in without a good certificate. Else a bad one is as good as none: many servers show, to whoever asks, a certificate that
    /// nobody outside can verify, and their mail is welcome all the same.
    pub required: bool,
}

impl ClientCertVerifier for Asks {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.required {
            return Ok(ClientCertVerified::assertion());
        }
        self.verifier.verify_client_cert(own, issuers, now)
    }

    // That the client has the certificate's key is verified always.

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
