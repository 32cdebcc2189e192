//! Protocol bytes without I/O.

pub mod grpc;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod tls;
pub mod url;
