//! One chunk: read, digested, packed and framed; and the way back.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_proto::id::Digest;
use godwit_proto::stream::{ChunkHeader, Codec};
use godwit_proto::wire;

use crate::stream::contents::Contents;
use crate::stream::tree::value;

/// The quickest level: what a chunk gains beyond it costs more time than it saves.
const ZSTD_LEVEL: i32 = 1;

/// A chunk ready to be sent.
pub(super) struct Packed {
    pub(super) frame: Bytes,
    /// As it stands before the bytes.
    pub(super) header: ChunkHeader,
    /// The codec that was tried; the frame may carry the plain bytes all the same.
    pub(super) tried: Codec,
    pub(super) raw_bytes: u64,
    pub(super) packed_bytes: u64,
    /// Time spent compressing.
    pub(super) took: Duration,
}

/// Reads the header's span and frames it; fills in `codec` and `digest`.
pub(super) fn pack(
    contents: &Contents,
    mut header: ChunkHeader,
    tried: Codec,
) -> io::Result<Packed> {
    // Read to where it is sent from: most chunks travel as they are.
    let mut frame = wire::encode(&header).map_err(io::Error::other)?;
    let header_bytes = frame.len();
    frame.resize(header_bytes + header.span.len() as usize, 0);
    let raw = &mut frame[header_bytes..];
    contents.read_exact_at(raw, header.span.start)?;
    header.digest = value(header.span.start, raw);
    let begun = Instant::now();
    let packed = match tried {
        Codec::None => None,
        Codec::Lz4 => Some(lz4_flex::block::compress(raw)),
        Codec::Zstd => Some(zstd::bulk::compress(raw, ZSTD_LEVEL)?),
    };
    let took = begun.elapsed();
    let packed_bytes = packed.as_ref().map_or(raw.len(), Vec::len) as u64;
    let smaller = packed.filter(|packed| packed.len() < raw.len());
    header.codec = if smaller.is_some() { tried } else { Codec::None };
    let finished = wire::encode(&header).map_err(io::Error::other)?;
    // Digest and codec take the same room whatever they are.
    frame[..header_bytes].copy_from_slice(&finished);
    if let Some(packed) = smaller {
        frame.truncate(header_bytes);
        frame.extend_from_slice(&packed);
        frame.shrink_to_fit();
    }
    let raw_bytes = header.span.len();
    Ok(Packed { frame: frame.into(), header, tried, raw_bytes, packed_bytes, took })
}

/// The chunk's bytes, if they are what its digest says.
pub(super) fn unpack(header: &ChunkHeader, body: &Bytes) -> Option<Bytes> {
    let raw_bytes = header.span.len() as usize;
    let raw = match header.codec {
        Codec::None => body.clone(),
        Codec::Lz4 => lz4_flex::block::decompress(body, raw_bytes).ok()?.into(),
        Codec::Zstd => zstd::bulk::decompress(body, raw_bytes).ok()?.into(),
    };
    (raw.len() == raw_bytes && value(header.span.start, &raw) == header.digest).then_some(raw)
}

/// BLAKE3 of some bytes.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_proto::stream::{Extent, Span, StreamId};
    use std::io::Write;

    fn packed(contents: &[u8], codec: Codec) -> (ChunkHeader, Bytes) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(contents).unwrap();
        let header = ChunkHeader {
            stream: StreamId::Image("0".repeat(64).parse().unwrap()),
            version: 1,
            extent: Extent::whole(contents.len() as u64),
            span: Span::new(0, contents.len() as u64),
            session: 1,
            want: 1,
            codec: Codec::None,
            digest: Digest([0; 32]),
        };
        let frame = pack(&Contents::File(file), header, codec).unwrap().frame;
        let (header, body) = wire::decode_with_tail::<ChunkHeader>(&frame).unwrap();
        (header, Bytes::copy_from_slice(body))
    }

    #[test]
    fn what_was_packed_unpacks() {
        let contents = b"as the crow flies ".repeat(1000);
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let (header, body) = packed(&contents, codec);
            assert_eq!(header.codec, codec);
            assert_eq!(unpack(&header, &body).as_deref(), Some(&contents[..]), "{codec:?}");
            assert_eq!(body.len() < contents.len(), codec != Codec::None);
        }
    }

    #[test]
    fn what_does_not_shrink_travels_as_it_is() {
        let mut noise = vec![0; 5000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        for codec in [Codec::Lz4, Codec::Zstd] {
            let (header, body) = packed(&noise, codec);
            assert_eq!((header.codec, body.len()), (Codec::None, noise.len()));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let contents = b"as the crow flies ".repeat(100);
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let (header, body) = packed(&contents, codec);
            for at in 0..body.len() {
                let mut bad = body.to_vec();
                bad[at] ^= 1;
                let found = unpack(&header, &bad.into());
                assert!(found.is_none_or(|raw| raw == contents), "{codec:?}, byte {at}");
            }
        }
    }

    #[test]
    fn a_small_chunk_cannot_unpack_to_more_than_its_span() {
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
        let (mut header, _) = packed(&[0; 1000], Codec::Zstd);
        header.codec = Codec::Zstd;
        assert_eq!(unpack(&header, &bomb.into()), None);
    }
}
