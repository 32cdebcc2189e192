use std::os::unix::fs::PermissionsExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::world::with_api;
use crate::api::Socket;
use crate::api::serve::BindError;

#[test]
fn the_socket_is_private_and_has_one_owner() {
    with_api(|world| async move {
        let path = world.dir.path().join("defib.sock");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path), Err(BindError::InUse { .. })));
    });
}

#[test]
fn a_left_over_socket_is_replaced_and_another_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let socket = Socket::bind(&path).unwrap();
    // Somebody else's file under the same name is not removed.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    drop(socket);
    assert!(matches!(Socket::bind(&path), Err(BindError::Io { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file");
}

#[test]
fn garbage_and_huge_requests_are_answered_or_dropped() {
    with_api(|world| async move {
        let raw = async |bytes: &[u8]| {
            let mut stream = UnixStream::connect(world.dir.path().join("defib.sock")).await.unwrap();
            // The server may close before it has read everything.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        assert!(raw(b"\x00\x01 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let head = format!("GET /version HTTP/1.1\r\nhost: d\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
        let answer = raw(head.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        let large = "x".repeat(5 * 1024 * 1024);
        let answer = world.call("POST", "/api/v1/namespaces/default/pods", &large).await;
        answer.assert_error(413, "RequestEntityTooLarge", "Request entity too large: limit is 4194304");
        assert_eq!(world.get("/version").await.code, 200, "others are served");
    });
}
