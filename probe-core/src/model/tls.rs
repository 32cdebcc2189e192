//! How TLS is spoken to a target: made by `wire::tls`, carried by specs and targets.

use std::fmt;
use std::sync::Arc;

/// Versions, ciphers and what is accepted of a server; shared by all targets that want the same.
#[derive(Clone)]
pub struct TlsConfig(pub Arc<rustls::ClientConfig>);

/// One server, as TLS sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsTarget {
    pub config: TlsConfig,
    /// Sent as SNI when it is a name, never when it is an address; what a certificate is checked against.
    pub server_name: rustls::pki_types::ServerName<'static>,
}

impl PartialEq for TlsConfig {
    fn eq(&self, other: &TlsConfig) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsConfig {}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConfig")
    }
}
