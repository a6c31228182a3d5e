//! How much is allocated for what a file says of itself: no more than a limit, whatever lengths it names.

use allocation_counter::measure;
use tonle::state::fuzz::{Outcome, decode, unpack};

use super::fuzz::read_corpus;
use super::world::frames;

/// Most that is held at once for a file of some kilobytes, in bytes: a list is given room for a megabyte before any of
/// it was read.
const DECODED_BYTES_MAX: u64 = 3 << 20;

/// What is held at once while `bytes` are read as whatever they may be.
fn held(bytes: &[u8], mend: bool) -> u64 {
    let decoded = measure(|| {
        decode(bytes, mend);
    });
    let unpacked = measure(|| {
        unpack(bytes, mend);
    });
    decoded.bytes_max.max(unpacked.bytes_max)
}

#[test]
fn what_is_counted_is_what_is_held() {
    let counted = measure(|| drop(std::hint::black_box(vec![1u8; 5 << 20])));
    assert!(counted.bytes_max > DECODED_BYTES_MAX, "{counted:?}");
}

#[test]
fn no_length_makes_a_reader_allocate_more_than_a_limit() {
    let all = read_corpus();
    for (name, bytes) in &all {
        assert!(held(bytes, false) < DECODED_BYTES_MAX, "{name}");
        // Every length of a frame, and every byte within, becomes as large as it can.
        for at in 0..bytes.len() {
            let mut large = bytes.clone();
            let end = (at + 9).min(bytes.len());
            large[at..end]
                .copy_from_slice(&[253, 255, 255, 255, 255, 255, 255, 255, 127][..end - at]);
            for mend in [false, true] {
                let held = held(&large, mend);
                assert!(held < DECODED_BYTES_MAX, "{name}, byte {at}: {held} bytes");
            }
        }
    }
}

/// Frames with right checksums whose content names lengths that are not there.
#[test]
fn hostile_frames_are_refused_within_the_limit() {
    let all = read_corpus();
    let most = [253, 255, 255, 255, 255, 255, 255, 255, 127];
    let four = [252, 255, 255, 255, 255];
    let payload = |tag: u8, parts: &[&[u8]]| [&[tag][..], &parts.concat()].concat();
    let payloads = [
        payload(2, &[&[0], &most]),
        payload(2, &[&[0, 1, 0], &most]),
        payload(3, &[&[0, 1], &most]),
        payload(4, &[&[0, 1], &four]),
        payload(4, &[&[0, 1, 1, 1, 0, 1], &most]),
        payload(5, &[&[0], &most]),
        payload(7, &[&[1; 17], &four]),
        payload(8, &[&[1; 16], &four]),
        payload(9, &[&most, &most]),
        payload(10, &[&[1, 1], &most]),
        payload(12, &[&[1; 17], &most]),
        payload(13, &[&most]),
        payload(99, &[]),
    ];
    for (name, bytes) in all.iter().filter(|(name, _)| name.starts_with("whole-plain")) {
        let (_, head, _) = frames(bytes)[0];
        for payload in &payloads {
            let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
            // Its checksum is made right.
            let hostile = [&bytes[..head], &length, &[0; 4], payload].concat();
            for outcome in decode(&hostile, true) {
                assert!(matches!(outcome, Outcome::Refused(_)), "{name}: {payload:?}: {outcome:?}");
            }
            let held = held(&hostile, true);
            assert!(held < DECODED_BYTES_MAX, "{name}: {payload:?}: {held} bytes");
        }
    }
}

/// The same of an export: the length of a name, and that of a file.
#[test]
fn no_length_in_an_export_makes_a_reader_allocate_more_than_a_limit() {
    let begin = [&b"tonlexpt"[..], &1u32.to_le_bytes()].concat();
    let name = [&8u16.to_le_bytes()[..], b"pipeline"].concat();
    for lengths in [
        [&[0xff; 2][..], &name],
        [&name, &[0xff; 8]],
        [&name, &[0xff, 0xff, 0xff, 0xff, 9, 0, 0, 0]],
    ] {
        let bytes = [&begin[..], &lengths.concat(), &[7; 4000]].concat();
        assert_eq!(unpack(&bytes, false), None);
        let held = held(&bytes, false);
        assert!(held < DECODED_BYTES_MAX, "{lengths:?}: {held} bytes");
    }
}
