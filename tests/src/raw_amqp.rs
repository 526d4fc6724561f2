//! Messages that no client library sends.

use anyhow::{Context as _, ensure};
use lapin::uri::AMQPUri;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const FRAME_END: u8 = 0xce;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
/// What the server offers by default.
const FRAME_MAX: u32 = 131_072;

/// Sends an empty message to the queue, whose headers are tables in each other to such a depth. The server has it when this returns.
pub async fn send_nested_headers(url: &str, queue: &str, depth: usize) -> anyhow::Result<()> {
    let uri: AMQPUri = url.parse().map_err(anyhow::Error::msg)?;
    let mut connection = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await?;
    connection.write_all(b"AMQP\0\0\x09\x01").await?;
    let user = &uri.authority.userinfo;
    let secret = format!("\0{}\0{}", user.username, user.password);
    // connection.start to open, channel.open, confirm.select.
    answered(&mut connection, None).await?;
    let start_ok = [&[0; 4][..], &short("PLAIN"), &long(secret.as_bytes()), &short("en_US")].concat();
    answered(&mut connection, Some((0, 10, 11, start_ok))).await?;
    let tune_ok = [&2_047_u16.to_be_bytes()[..], &FRAME_MAX.to_be_bytes(), &[0, 0]].concat();
    send(&mut connection, 0, 10, 31, &tune_ok).await?;
    answered(&mut connection, Some((0, 10, 40, [&short(&uri.vhost)[..], &[0, 0]].concat()))).await?;
    answered(&mut connection, Some((1, 20, 10, vec![0]))).await?;
    answered(&mut connection, Some((1, 85, 10, vec![0]))).await?;

    // basic.publish to the default exchange; the header of a body of no bytes, with nothing but headers.
    send(&mut connection, 1, 60, 40, &[&[0, 0, 0][..], &short(queue), &[0]].concat()).await?;
    let nested = (0..depth).fold(long(b""), |inner, _| long(&[b"\0F", &inner[..]].concat()));
    let header = [b"\0\x3c\0\0\0\0\0\0\0\0\0\0\x20\0", &nested[..]].concat();
    ensure!(header.len() + 8 <= FRAME_MAX as usize, "{} bytes of headers do not fit into a frame", header.len());
    connection.write_all(&frame(HEADER, 1, &header)).await?;
    // basic.ack.
    answered(&mut connection, None).await.context("the server does not take the message")
}

async fn answered(connection: &mut TcpStream, question: Option<(u16, u16, u16, Vec<u8>)>) -> anyhow::Result<()> {
    if let Some((channel, class, method, arguments)) = question {
        send(connection, channel, class, method, &arguments).await?;
    }
    let mut head = [0; 7];
    connection.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut rest = vec![0; length as usize + 1];
    connection.read_exact(&mut rest).await?;
    // connection.close and channel.close are refusals.
    ensure!(
        head[0] == METHOD && !matches!(rest[..4], [0, 10, 0, 50] | [0, 20, 0, 40]),
        "refused: {:?}",
        rest.escape_ascii().to_string()
    );
    Ok(())
}

async fn send(connection: &mut TcpStream, channel: u16, class: u16, method: u16, arguments: &[u8]) -> anyhow::Result<()> {
    let content = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    Ok(connection.write_all(&frame(METHOD, channel, &content)).await?)
}

fn frame(kind: u8, channel: u16, content: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &long(content), &[FRAME_END]].concat()
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn long(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes(), content].concat()
}
