//! Just enough of protocol buffers to write TensorBoard's messages.
//!
//! The wire format: <https://protobuf.dev/programming-guides/encoding/>.

pub const VARINT: u64 = 0;
pub const FIXED_64: u64 = 1;
pub const BYTES: u64 = 2;
pub const FIXED_32: u64 = 5;

/// Seven bits a byte, the lowest first.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The start of a field.
pub fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

/// A string, bytes or message field.
pub fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend(value);
}

/// An integer, enum or bool field.
pub fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

/// A double field.
pub fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, FIXED_64);
    out.extend(value.to_le_bytes());
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One field of a message: its number and its bytes (a varint as 8 bytes).
    pub fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !data.is_empty() {
            let key = varint(&mut data);
            let length = match key & 7 {
                VARINT => {
                    found.push((key >> 3, varint(&mut data).to_le_bytes().to_vec()));
                    continue;
                }
                FIXED_64 => 8,
                FIXED_32 => 4,
                BYTES => varint(&mut data) as usize,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = data.split_at(length);
            found.push((key >> 3, value.to_vec()));
            data = rest;
        }
        found
    }

    #[test]
    fn fields_read_back() {
        let mut message = Vec::new();
        number(&mut message, 1, 300);
        double(&mut message, 2, 0.5);
        bytes(&mut message, 16, b"abc");
        let expected = [(1, 300u64.to_le_bytes().to_vec()), (2, 0.5f64.to_le_bytes().to_vec()), (16, b"abc".to_vec())];
        assert_eq!(fields(&message), expected);
        assert_eq!(message[..3], [8, 0xac, 2], "the example of the specification");
    }
}
