//! HTTP/2 by hand: servers that no library serves.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use test_support::World;

use super::{
    BAD_DETAILS, CODE_77, DRAINS, DRAINS_ONCE, HTML, LEAVES, LONG, MESH, NO_TRAILERS, REFUSES_ONCE, RESETS,
    WRONG_LENGTH, each_connection, listen,
};

/// A frame: type, flags, stream, payload.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).expect("short").to_be_bytes();
    [&[0, high, low, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A server's first frame.
pub const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status` 200 and 404 in HPACK's table.
const STATUS_200: u8 = 0x88;
const STATUS_404: u8 = 0x8d;
const SERVING_MESSAGE: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];

/// Headers in HPACK, literally.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn head(status: u8, content_type: &str) -> Vec<u8> {
    [vec![status], fields(&[("content-type", content_type)])].concat()
}

/// The stream's answer: it serves.
fn serving(stream: u8) -> Vec<u8> {
    serving_with(stream, &[])
}

/// The same with more headers.
fn serving_with(stream: u8, more: &[(&str, &str)]) -> Vec<u8> {
    let end = fields(&[("grpc-status", "0")]);
    [
        frame(HEADERS, END_HEADERS, stream, &[head(STATUS_200, "application/grpc"), fields(more)].concat()),
        frame(DATA, 0, stream, &SERVING_MESSAGE),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &end),
    ]
    .concat()
}

/// Headers and nothing else.
fn only_headers(more: &[(&str, &str)]) -> Vec<u8> {
    let block = [head(STATUS_200, "application/grpc"), fields(more)].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

/// Says SETTINGS, and `say` once the request of this stream has come.
fn speak(stream: &mut TcpStream, asked: u8, say: &[u8]) {
    let _ = stream.write_all(&SETTINGS);
    let (mut heard, mut buffer) = (Vec::new(), [0; 1_024]);
    // The head of its HEADERS frame, which has END_HEADERS.
    let begins = [HEADERS, END_HEADERS, 0, 0, 0, asked];
    while !heard.windows(begins.len()).any(|bytes| bytes == begins) {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => heard.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let _ = stream.write_all(say);
}

/// As a server that has said all.
pub fn read_to_its_end(stream: &mut TcpStream) {
    while stream.read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
}

/// HTTP/2 servers that are ill, or no gRPC servers.
pub fn serve_ill(world: &World) {
    let scripts = [
        (RESETS, frame(RST_STREAM, 0, 1, &[0, 0, 0, 2])),
        (HTML, frame(HEADERS, END_HEADERS | END_STREAM, 1, &head(STATUS_404, "text/html"))),
        (CODE_77, only_headers(&[("grpc-status", "77"), ("grpc-message", "what%20is%20it")])),
        (
            BAD_DETAILS,
            only_headers(&[
                ("grpc-status", "5"),
                ("grpc-message", "no"),
                ("grpc-status-details-bin", "!no base64!"),
            ]),
        ),
        (
            LONG,
            [
                frame(HEADERS, END_HEADERS, 1, &head(STATUS_200, "application/grpc")),
                frame(DATA, 0, 1, &[0, 0x7f, 0, 0, 0, 8, 1]),
            ]
            .concat(),
        ),
        (
            NO_TRAILERS,
            [
                frame(HEADERS, END_HEADERS, 1, &head(STATUS_200, "application/grpc")),
                frame(DATA, END_STREAM, 1, &SERVING_MESSAGE),
            ]
            .concat(),
        ),
    ];
    let of_mesh = "m".repeat(100);
    let scripts = scripts.into_iter().chain([
        // 13 KiB as HTTP/2 counts them.
        (MESH, serving_with(1, &[("x-mesh", of_mesh.as_str()); 100])),
        (WRONG_LENGTH, serving_with(1, &[("content-length", "1")])),
    ]);
    for (port, say) in scripts {
        each_connection(listen(world, port), move |_, mut stream| {
            speak(&mut stream, 1, &say);
            read_to_its_end(&mut stream);
        });
    }
    each_connection(listen(world, LEAVES), |_, mut stream| {
        speak(&mut stream, 1, &frame(GOAWAY, 0, 0, b"\0\0\0\x01\0\0\0\0bye"));
        let _ = stream.shutdown(Shutdown::Write);
        read_to_its_end(&mut stream);
    });
    each_connection(listen(world, REFUSES_ONCE), |_, mut stream| {
        speak(&mut stream, 1, &frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]));
        speak(&mut stream, 3, &serving(3));
        read_to_its_end(&mut stream);
    });
    each_connection(listen(world, DRAINS_ONCE), |number, mut stream| {
        let goodbye = frame(GOAWAY, 0, 0, &[0; 8]);
        speak(&mut stream, 1, &if number % 2 == 0 { goodbye } else { serving(1) });
        read_to_its_end(&mut stream);
    });
    each_connection(listen(world, DRAINS), |_, mut stream| {
        speak(&mut stream, 1, &frame(GOAWAY, 0, 0, &[0; 8]));
        read_to_its_end(&mut stream);
    });
}
