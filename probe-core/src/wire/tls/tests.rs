//! Sessions against a rustls server in memory, in any pieces, and against what is no TLS server.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::OnceLock;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::{CaError, Session, TlsError, any_certificate, server_name, verified_by};
use crate::model::limits::SLOT_BUFFER_BYTES;
use crate::model::tls::{TlsConfig, TlsTarget};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// An authority and a server's certificate by it.
struct Pki {
    ca_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn pki(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pki {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "authority of the test");
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Pki { ca_pem, chain: vec![certificate.der().clone()], key }
}

fn shared() -> &'static Pki {
    static SHARED: OnceLock<Pki> = OnceLock::new();
    SHARED.get_or_init(|| pki(&["example.com", "10.0.0.1"], |_| {}))
}

fn server_with(pki: &Pki, versions: &[&'static SupportedProtocolVersion]) -> ServerConnection {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pki.chain.clone(), pki.key.clone_key())
        .unwrap();
    ServerConnection::new(Arc::new(config)).unwrap()
}

fn server(pki: &Pki) -> ServerConnection {
    server_with(pki, rustls::ALL_VERSIONS)
}

fn session(config: TlsConfig, host: &str) -> Session {
    Session::new(&TlsTarget { config, server_name: server_name(host) }).unwrap()
}

/// What the client got, and how the session stands.
#[derive(PartialEq, Eq, Debug)]
struct Got {
    plain: Vec<u8>,
    error: Option<TlsError>,
    request: Vec<u8>,
}

/// A whole exchange, the server's bytes in pieces of these sizes, in turn: the client sends a request, the server
/// answers with `answer` once it has come, and says goodbye.
fn talk(client: &mut Session, server: &mut ServerConnection, answer: &[u8], pieces: &[usize]) -> Got {
    let mut got = Got { plain: Vec::new(), error: None, request: Vec::new() };
    let mut sizes = pieces.iter().copied().cycle();
    client.write(REQUEST).unwrap();
    let (mut rest, mut is_answered) = (answer, false);
    loop {
        while let Some(bytes) = client.take_outgoing() {
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                server.read_tls(&mut bytes).unwrap();
                if server.process_new_packets().is_err() {
                    break;
                }
            }
        }
        let mut some = [0; 256];
        while let Ok(count @ 1..) = server.reader().read(&mut some) {
            got.request.extend_from_slice(&some[..count]);
        }
        if got.request == REQUEST && !is_answered {
            let count = server.writer().write(rest).unwrap();
            rest = &rest[count..];
            if rest.is_empty() {
                server.send_close_notify();
                is_answered = true;
            }
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        if wire.is_empty() {
            return got;
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            let size = sizes.next().unwrap_or(wire.len()).clamp(1, wire.len());
            let mut piece = &wire[..size];
            loop {
                match client.receive(piece) {
                    Ok(used) => piece = &piece[used..],
                    Err(error) => {
                        got.error = Some(error);
                        return got;
                    }
                }
                assert!(client.plain().len() <= SLOT_BUFFER_BYTES);
                let count = client.plain().len();
                got.plain.extend_from_slice(client.plain());
                client.drop_plain(count);
                if count == 0 && piece.is_empty() {
                    break;
                }
            }
            wire = &wire[size..];
        }
    }
}

fn words(config: TlsConfig, host: &str, pki: &Pki) -> String {
    let (mut client, mut server) = (session(config, host), server(pki));
    let got = talk(&mut client, &mut server, b"x", &[usize::MAX]);
    assert!(client.take_outgoing().is_some() || got.error.is_none(), "an alert tells the server why");
    got.error.map_or_else(|| "accepted".to_owned(), |error| error.to_string())
}

#[test]
fn any_certificate_is_accepted_in_both_versions() {
    let expired = pki(&["other.example"], |params| params.not_after = date_time_ymd(2001, 1, 1));
    for version in rustls::ALL_VERSIONS {
        for pki in [shared(), &expired] {
            let (mut client, mut server) =
                (session(any_certificate(), "example.com"), server_with(pki, &[version]));
            let got = talk(&mut client, &mut server, b"HTTP/1.1 200 OK\r\n\r\n", &[usize::MAX]);
            assert_eq!(got.error, None, "{version:?}");
            assert_eq!(got.plain, b"HTTP/1.1 200 OK\r\n\r\n", "{version:?}");
            assert!(!client.is_handshaking() && client.is_between_records());
            assert_eq!(server.alpn_protocol(), None, "the server has none to choose");
        }
    }
}

#[test]
fn names_are_sent_and_addresses_are_not() {
    for (host, sni) in
        [("example.com", Some("example.com")), ("10.0.0.1", None), ("::1", None), ("a b", None)]
    {
        let (mut client, mut server) = (session(any_certificate(), host), server(shared()));
        talk(&mut client, &mut server, b"x", &[usize::MAX]);
        assert_eq!(server.server_name(), sni, "{host}");
    }
}

#[test]
fn a_given_authority_is_checked_in_gos_words() {
    let failed = "tls: failed to verify certificate: x509: ";
    let pki = shared();
    let trusted = verified_by(pki.ca_pem.as_bytes()).unwrap();
    let other = verified_by(self::pki(&["x"], |_| {}).ca_pem.as_bytes()).unwrap();
    assert_eq!(words(trusted.clone(), "example.com", pki), "accepted");
    assert_eq!(words(trusted.clone(), "10.0.0.1", pki), "accepted");
    assert_eq!(words(other, "example.com", pki), format!("{failed}certificate signed by unknown authority"));
    assert_eq!(
        words(trusted.clone(), "other.example", pki),
        format!("{failed}certificate is valid for example.com, not other.example")
    );
    assert_eq!(
        words(trusted, "10.0.0.2", pki),
        format!("{failed}certificate is valid for 10.0.0.1, not 10.0.0.2")
    );
    let no_address = self::pki(&["example.com"], |_| {});
    let trusted = verified_by(no_address.ca_pem.as_bytes()).unwrap();
    assert_eq!(
        words(trusted, "10.0.0.1", &no_address),
        format!("{failed}cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs")
    );
    let of_an_authority = self::pki(&["example.com"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    let trusted = verified_by(of_an_authority.ca_pem.as_bytes()).unwrap();
    let text = words(trusted, "example.com", &of_an_authority);
    assert!(text.starts_with(&format!("{failed}certificate is an authority's")), "{text}");
    let expired = self::pki(&["example.com"], |params| params.not_after = date_time_ymd(2001, 1, 1));
    let trusted = verified_by(expired.ca_pem.as_bytes()).unwrap();
    let text = words(trusted, "example.com", &expired);
    assert!(
        text.starts_with(&format!("{failed}certificate has expired or is not yet valid: current time 2"))
            && text.ends_with("Z is after 2001-01-01T00:00:00Z"),
        "{text}"
    );
}

#[test]
fn files_that_are_no_authority() {
    assert_eq!(verified_by(b"").err(), Some(CaError::Empty));
    assert_eq!(verified_by(b"no pem").err(), Some(CaError::Empty));
    let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert!(matches!(verified_by(torn.as_bytes()), Err(CaError::Pem(_))));
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(verified_by(empty.as_bytes()), Err(CaError::Certificate(_))));
}

#[track_caller]
fn check_garbage(wire: &[u8], expected: &str) {
    for step in [1, 3, wire.len()] {
        let mut client = session(any_certificate(), "example.com");
        assert!(client.take_outgoing().is_some(), "a hello");
        let error = wire.chunks(step).find_map(|piece| client.receive(piece).err());
        assert_eq!(error.map(|error| error.to_string()).as_deref(), Some(expected), "in steps of {step}");
    }
}

#[test]
fn servers_that_do_not_speak_tls() {
    check_garbage(b"HTTP/1.0 400 Bad Request\r\n\r\n", "http: server gave HTTP response to HTTPS client");
    check_garbage(b"SSH-2.0-OpenSSH_9.2\r\n", "tls: first record does not look like a TLS handshake");
    check_garbage(&[0; 64], "tls: first record does not look like a TLS handshake");
    // Application data before any handshake.
    check_garbage(b"\x17\x03\x03\x00\x01x", "tls: first record does not look like a TLS handshake");
}

#[test]
fn alerts_have_gos_names() {
    for (code, text) in
        [(40, "handshake failure"), (70, "protocol version not supported"), (199, "alert(199)")]
    {
        check_garbage(&[21, 3, 3, 0, 2, 2, code], &format!("remote error: tls: {text}"));
    }
}

#[test]
fn records_that_are_too_large_end_the_session() {
    let mut wire = vec![22, 3, 3, 0xff, 0xff];
    wire.resize(0x1_0000, 0);
    check_garbage(&wire, "tls: oversized record received");
}

#[test]
fn the_end_of_the_stream_is_told_from_a_torn_record() {
    let mut client = session(any_certificate(), "example.com");
    assert!(client.is_between_records() && client.is_handshaking());
    client.receive(&[22, 3, 3]).unwrap();
    assert!(!client.is_between_records());
    client.receive(&[0, 9, 2]).unwrap();
    assert!(!client.is_between_records());
}

#[test]
fn the_goodbye_reaches_the_server() {
    let (mut client, mut server) = (session(any_certificate(), "example.com"), server(shared()));
    talk(&mut client, &mut server, b"x", &[usize::MAX]);
    client.close();
    let bytes = client.take_outgoing().unwrap();
    server.read_tls(&mut &bytes[..]).unwrap();
    let state = server.process_new_packets().unwrap();
    assert!(state.peer_has_closed());
}

#[test]
fn a_large_answer_comes_through_a_bounded_buffer() {
    let answer: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    for pieces in [vec![usize::MAX], vec![16_384], vec![1_000, 17]] {
        let (mut client, mut server) = (session(any_certificate(), "example.com"), server(shared()));
        let got = talk(&mut client, &mut server, &answer, &pieces);
        assert_eq!(got.error, None);
        assert!(got.plain == answer, "{} of {} bytes", got.plain.len(), answer.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_pieces_give_the_same(pieces in prop::collection::vec(1_usize..700, 1..8), len in 0_usize..40_000) {
        let answer = vec![b'a'; len];
        let (mut client, mut server) = (session(any_certificate(), "example.com"), server(shared()));
        let got = talk(&mut client, &mut server, &answer, &pieces);
        prop_assert_eq!(got, Got { plain: answer, error: None, request: REQUEST.to_vec() });
    }

    #[test]
    fn any_bytes_end_in_an_error_or_wait_for_more(bytes: Vec<u8>, step in 1_usize..40) {
        let mut client = session(any_certificate(), "example.com");
        for piece in bytes.chunks(step) {
            if client.receive(piece).is_err() {
                break;
            }
        }
        prop_assert!(client.plain().is_empty());
    }
}
