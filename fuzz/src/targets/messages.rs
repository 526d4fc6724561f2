use amq_protocol::frame::parsing::parse_frame;

/// As lapin reads what RabbitMQ sends: one frame after the other.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok((after, _)) = parse_frame(rest) {
        if after.len() == rest.len() {
            break;
        }
        rest = after;
    }
}

pub fn limit(bytes: &[u8]) -> usize {
    512 * bytes.len() + (64 << 10)
}
