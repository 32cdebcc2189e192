//! The library's errors in the words of Go's crypto/tls and crypto/x509, which stand in kubelet's events.

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error, HandshakeType, InvalidMessage, PeerIncompatible};

use super::TlsError;

/// A session's error as the event shows it.
pub fn error(error: &Error) -> TlsError {
    let text = match error {
        Error::AlertReceived(alert) => format!("remote error: tls: {}", self::alert(*alert)),
        Error::InvalidCertificate(problem) => {
            format!("tls: failed to verify certificate: x509: {}", certificate(problem))
        }
        Error::DecryptError => "local error: tls: bad record MAC".to_owned(),
        Error::PeerSentOversizedRecord | Error::InvalidMessage(InvalidMessage::MessageTooLarge) => {
            "tls: oversized record received".to_owned()
        }
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "tls: server selected unsupported protocol version".to_owned()
        }
        Error::InvalidMessage(InvalidMessage::MissingData(_) | InvalidMessage::TrailingData(_)) => {
            "local error: tls: error decoding message".to_owned()
        }
        Error::InappropriateHandshakeMessage { expect_types, got_type } => {
            let wanted = expect_types.first().map_or("nil", |wanted| message(*wanted));
            let got = message(*got_type);
            format!("tls: received unexpected handshake message of type {got} when waiting for {wanted}")
        }
        other => format!("tls: {other}"),
    };
    TlsError::Protocol(text.into())
}

/// Go's type for a handshake message.
fn message(kind: HandshakeType) -> &'static str {
    match kind {
        HandshakeType::HelloRequest => "*tls.helloRequestMsg",
        HandshakeType::ClientHello => "*tls.clientHelloMsg",
        HandshakeType::ServerHello | HandshakeType::HelloRetryRequest => "*tls.serverHelloMsg",
        HandshakeType::NewSessionTicket => "*tls.newSessionTicketMsg",
        HandshakeType::EncryptedExtensions => "*tls.encryptedExtensionsMsg",
        HandshakeType::Certificate => "*tls.certificateMsg",
        HandshakeType::ServerKeyExchange => "*tls.serverKeyExchangeMsg",
        HandshakeType::CertificateRequest => "*tls.certificateRequestMsg",
        HandshakeType::ServerHelloDone => "*tls.serverHelloDoneMsg",
        HandshakeType::CertificateVerify => "*tls.certificateVerifyMsg",
        HandshakeType::ClientKeyExchange => "*tls.clientKeyExchangeMsg",
        HandshakeType::Finished => "*tls.finishedMsg",
        HandshakeType::CertificateStatus => "*tls.certificateStatusMsg",
        HandshakeType::KeyUpdate => "*tls.keyUpdateMsg",
        _ => "nil",
    }
}

/// crypto/x509's texts.
fn certificate(problem: &CertificateError) -> String {
    let expired = "certificate has expired or is not yet valid: ";
    match problem {
        // Of the name alone: another authority's key has signed.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::NotValidYet => {
            expired.trim_end_matches(": ").to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("{expired}current time {} is after {}", rfc3339(*time), rfc3339(*not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("{expired}current time {} is before {}", rfc3339(*time), rfc3339(*not_before))
        }
        CertificateError::NotValidForNameContext { expected, presented } => other_name(expected, presented),
        // The library tells it in no other way.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "certificate is an authority's and not a server's: sign another one with it for the server"
                .to_owned()
        }
        other => format!("{other}"),
    }
}

fn other_name(expected: &ServerName<'_>, presented: &[String]) -> String {
    // The library shows names as `DnsName("a")` and `IpAddress(1.2.3.4)`.
    let inner = |name: &str| {
        let inside = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
        inside.trim_matches('"').to_owned()
    };
    let wanted = expected.to_str();
    let is_address = matches!(expected, ServerName::IpAddress(_));
    let of_kind: Vec<String> = presented
        .iter()
        .filter(|name| name.starts_with("IpAddress") == is_address)
        .map(|name| inner(name))
        .collect();
    match (is_address, of_kind.is_empty()) {
        (true, true) => {
            format!("cannot validate certificate for {wanted} because it doesn't contain any IP SANs")
        }
        (false, true) => {
            format!("certificate is not valid for any names, but wanted to match {wanted}")
        }
        (_, false) => format!("certificate is valid for {}, not {wanted}", of_kind.join(", ")),
    }
}

fn rfc3339(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}

/// Go's alertText.
fn alert(alert: AlertDescription) -> String {
    let known = match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::DecryptionFailed => "decryption failed",
        AlertDescription::RecordOverflow => "record overflow",
        AlertDescription::DecompressionFailure => "decompression failure",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ExportRestriction => "export restriction",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::InappropriateFallback => "inappropriate fallback",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::NoRenegotiation => "no renegotiation",
        AlertDescription::MissingExtension => "missing extension",
        AlertDescription::UnsupportedExtension => "unsupported extension",
        AlertDescription::CertificateUnobtainable => "certificate unobtainable",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::BadCertificateStatusResponse => "bad certificate status response",
        AlertDescription::BadCertificateHashValue => "bad certificate hash value",
        AlertDescription::UnknownPSKIdentity => "unknown PSK identity",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    };
    known.to_owned()
}
