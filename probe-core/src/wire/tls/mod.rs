//! TLS without I/O: what was received goes in, what is to be sent and the plain text come out.
//!
//! Kubelet's client is Go's with `InsecureSkipVerify` (kubelet-semantics 4.1): TLS 1.2 and 1.3, no session
//! resumption, and any certificate is accepted. A probe asks whether a server answers, not who it is; who wants to
//! know that gives a CA by annotation. Where Go offers HTTP/2, only HTTP/1.1 is offered here.

mod any;
#[cfg(test)]
mod tests;
mod words;

use std::io::{BufRead as _, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::model::limits::SLOT_BUFFER_BYTES;
use crate::model::tls::{TlsConfig, TlsTarget};

/// Header of a record: type, version, length (RFC 8446, 5.1).
const HEADER_BYTES: usize = 5;

/// The configuration that accepts any certificate. The process has one.
pub fn any_certificate() -> TlsConfig {
    static SHARED: OnceLock<TlsConfig> = OnceLock::new();
    SHARED
        .get_or_init(|| {
            let builder = builder().dangerous();
            finish(
                builder.with_custom_certificate_verifier(Arc::new(any::AnyCertificate)).with_no_client_auth(),
            )
        })
        .clone()
}

/// A configuration that accepts only certificates that lead to one of these, given as PEM.
///
/// # Errors
/// The text is no PEM, or has no certificate that can be an authority.
pub fn verified_by(pem: &[u8]) -> Result<TlsConfig, CaError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| CaError::Pem(error.to_string()))?;
        roots.add(certificate).map_err(|error| CaError::Certificate(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(CaError::Empty);
    }
    Ok(finish(builder().with_root_certificates(roots).with_no_client_auth()))
}

/// Why a file gives no certificate authority.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaError {
    #[error("not valid PEM: {0}")]
    Pem(String),
    #[error("a certificate in it cannot be an authority: {0}")]
    Certificate(String),
    #[error("no certificate in it: give PEM with BEGIN CERTIFICATE")]
    Empty,
}

/// The name of a URL's host for TLS. What is neither a name nor an address becomes an address, so that no name is
/// sent.
pub fn server_name(host: &str) -> ServerName<'static> {
    let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
    ServerName::try_from(host.to_owned()).unwrap_or(nobody)
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks the versions that it was built with")
}

fn finish(mut config: ClientConfig) -> TlsConfig {
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConfig(Arc::new(config))
}

/// Why a session cannot go on, in Go's words where Go has some.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainHttp,
    #[error("tls: first record does not look like a TLS handshake")]
    NotTls,
    #[error("{0}")]
    Protocol(Box<str>),
}

/// One connection's TLS.
pub struct Session {
    connection: ClientConnection,
    /// The first header of the peer.
    first: Vec<u8>,
    records: Records,
    /// Decrypted, not used yet: at most [`SLOT_BUFFER_BYTES`].
    plain: Vec<u8>,
    /// The peer's close_notify has come.
    has_ended: bool,
}

impl Session {
    /// Begins a handshake: [`Session::take_outgoing`] has its first bytes.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(target: &TlsTarget) -> Result<Session, TlsError> {
        let connection = ClientConnection::new(Arc::clone(&target.config.0), target.server_name.clone())
            .map_err(|error| words::error(&error))?;
        Ok(Session {
            connection,
            first: Vec::new(),
            records: Records::default(),
            plain: Vec::new(),
            has_ended: false,
        })
    }

    /// Queues plain text, which goes out as soon as the handshake allows.
    ///
    /// # Errors
    /// It is larger than what may wait for the end of a handshake (64 KiB).
    pub fn write(&mut self, plain: &[u8]) -> Result<(), TlsError> {
        self.connection
            .writer()
            .write_all(plain)
            .map_err(|error| TlsError::Protocol(format!("tls: {error}").into()))
    }

    /// Takes received bytes in and returns how many: all of them, unless [`Session::plain`] is full. Without bytes it
    /// goes on where the plain text had no room.
    ///
    /// # Errors
    /// The peer does not speak TLS, has ended the session with an alert, or is not to be trusted. An alert for it is in
    /// [`Session::take_outgoing`].
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, TlsError> {
        let mut rest = self.begin(bytes)?;
        loop {
            self.decrypted()?;
            if rest.is_empty() || self.plain.len() == SLOT_BUFFER_BYTES {
                return Ok(bytes.len() - rest.len());
            }
            if self.feed(&mut rest)? == 0 {
                // What comes after the peer's close_notify is nobody's.
                return Ok(bytes.len());
            }
        }
    }

    /// Keeps the first five bytes back until all are there: Go judges them together (crypto/tls, readRecordOrCCS),
    /// the library one by one. Returns what is behind them.
    fn begin<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], TlsError> {
        if self.first.len() == HEADER_BYTES {
            return Ok(bytes);
        }
        let (first, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - self.first.len()));
        self.first.extend_from_slice(first);
        if self.first.len() == HEADER_BYTES {
            check_first(&self.first)?;
            let first = self.first.clone();
            self.feed(&mut &first[..])?;
        }
        Ok(rest)
    }

    fn feed(&mut self, rest: &mut &[u8]) -> Result<usize, TlsError> {
        let shown = *rest;
        let count = self.connection.read_tls(rest).map_err(|error| broken(&error))?;
        self.records.advance(&shown[..count]);
        let state = self.connection.process_new_packets().map_err(|error| words::error(&error))?;
        self.has_ended |= state.peer_has_closed();
        Ok(count)
    }

    /// Moves plain text from the library to ours, as far as there is room.
    fn decrypted(&mut self) -> Result<(), TlsError> {
        let mut reader = self.connection.reader();
        loop {
            let room = SLOT_BUFFER_BYTES - self.plain.len();
            let count = match reader.fill_buf() {
                Ok(part) => {
                    let part = &part[..part.len().min(room)];
                    self.plain.extend_from_slice(part);
                    part.len()
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(broken(&error)),
            };
            if count == 0 {
                return Ok(());
            }
            reader.consume(count);
        }
    }

    /// Plain text that has come and was not dropped.
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Whether the plain text has no room for more: what is behind it comes with the next [`Session::receive`].
    pub fn is_full(&self) -> bool {
        self.plain.len() == SLOT_BUFFER_BYTES
    }

    /// Drops the first `count` bytes of the plain text.
    pub fn drop_plain(&mut self, count: usize) {
        self.plain.drain(..count);
    }

    /// Takes what is to be sent; None: nothing.
    pub fn take_outgoing(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            // Writing to a vector does not fail.
            if !matches!(self.connection.write_tls(&mut out), Ok(1..)) {
                break;
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Says goodbye: a close_notify is in [`Session::take_outgoing`].
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether keys are still being agreed on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer has said that nothing more comes, and all of what came before was taken: the end of the stream,
    /// whether or not the connection is closed.
    pub fn has_ended(&self) -> bool {
        self.has_ended && !self.is_full()
    }

    /// Whether everything that came was whole records. An end of the stream here is an end; elsewhere something is
    /// missing (Go treats it so, whether or not a close_notify came).
    pub fn is_between_records(&self) -> bool {
        let begins = matches!(self.first.len(), 0 | HEADER_BYTES);
        begins && self.records.left == 0 && self.records.have == 0
    }
}

fn broken(error: &std::io::Error) -> TlsError {
    TlsError::Protocol(format!("tls: {error}").into())
}

/// Go looks at the first header only: type alert or handshake, major version below 16. net/http knows a plain answer
/// by the same five bytes.
fn check_first(header: &[u8]) -> Result<(), TlsError> {
    match header {
        b"HTTP/" => Err(TlsError::PlainHttp),
        [21 | 22, 0..=0x0f, ..] => Ok(()),
        _ => Err(TlsError::NotTls),
    }
}

/// Where in the stream of records the bytes so far end.
#[derive(Default)]
struct Records {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header.
    have: usize,
    /// Bytes until the record ends.
    left: usize,
}

impl Records {
    fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = &bytes[count..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == HEADER_BYTES {
                self.have = 0;
                self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            }
        }
    }
}
